"""Read model of registry decisions and trainers' outcomes: a fold over ordered events."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from shared.events import (
    Artefact,
    CheckpointSaved,
    Event,
    RunCancelled,
    RunControlEvent,
    RunResumed,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)
from shared.events.hyperparameters import Configuration


@dataclass(frozen=True)
class Champion:
    """The version that is served; without an adapter it is the base model."""

    version: str
    adapter: Artefact | None


@dataclass
class PublishedRun:
    """Events of one run by any trainer, and the registry's answers, each by evaluation number.

    `has_ended` is true once the run needs no more work: its version was promoted or waits for an
    operator, or the run was rolled back. `control` is an operator's newest decision on the run.
    """

    has_ended: bool = False
    control: RunControlEvent | None = None
    checkpoints: dict[int, CheckpointSaved] = field(default_factory=dict)
    answers: dict[int, VersionRegistered] = field(default_factory=dict)

    @property
    def resumption(self) -> int | None:
        """Number of the decision that resumed the run; None unless that is the newest one."""
        control = self.control
        return control.number if isinstance(control, RunResumed) else None


class RegistryState:
    """State of the fold. Applying events again is harmless if their order is kept."""

    def __init__(self) -> None:
        self._champions: dict[str, Champion] = {}
        self._batches: dict[tuple[str, str], str] = {}
        self._quarantined: defaultdict[str, set[str]] = defaultdict(set)
        self._runs: defaultdict[str, PublishedRun] = defaultdict(PublishedRun)

    def apply(self, event: Event) -> None:
        match event:
            case VersionRegistered():
                self._register(event)
            case VersionPromoted():
                self._champions[event.model] = Champion(event.version, event.adapter)
            case VersionRolledBack():
                self._champions[event.model] = Champion(event.version, event.adapter)
                # An operator's rollback can have any reason. The monitor rolls back because the
                # version performed worse.
                if event.actor == "monitor" and (
                    batch := self._batches.get((event.model, event.from_version))
                ):
                    self._quarantined[event.model].add(batch)
            case RunCancelled() | RunResumed():
                self._apply_control(event)
            case VersionWithdrawn():
                if event.quarantined and event.batch_id is not None:
                    self._quarantined[event.model].add(event.batch_id)
            case CheckpointSaved():
                # The first checkpoint of an evaluation counts, whichever trainer published it.
                self._runs[event.run_id].checkpoints.setdefault(event.evaluation, event)
            case TrainingRolledBack():
                self._runs[event.run_id].has_ended = True
                if event.outcome == "rejected" and (
                    event.verdict is None or event.verdict.quarantines_batch
                ):
                    self._quarantined[event.model].add(event.batch_id)
            case _:
                pass

    def _register(self, event: VersionRegistered) -> None:
        if event.number == 0:
            self._champions.setdefault(event.model, Champion(event.version, event.adapter))
        if event.batch_id is not None:
            self._batches[event.model, event.version] = event.batch_id
        if event.run_id is not None:
            run = self._runs[event.run_id]
            run.answers[event.evaluation] = event
            run.has_ended = run.has_ended or event.answer != "reevaluate"

    def _apply_control(self, event: RunControlEvent) -> None:
        run = self._runs[event.run_id]
        if run.control is None or event.number > run.control.number:
            run.control = event

    def champion(self, model: str) -> Champion | None:
        """Return None until the registry has registered the model's first version."""
        return self._champions.get(model)

    def configuration_of(self, adapter: Artefact) -> Configuration | None:
        """Return the configuration of the run that made an adapter, None if it is not known."""
        checkpoints = (
            checkpoint for run in self._runs.values() for checkpoint in run.checkpoints.values()
        )
        return next((made.configuration for made in checkpoints if made.adapter == adapter), None)

    def quarantined_batches(self, model: str) -> Collection[str]:
        """Return the batches that are excluded from training and evaluation."""
        return frozenset(self._quarantined[model])

    def resumptions(self) -> Iterator[tuple[str, int]]:
        """Yield the resumed runs that have not ended, each with its newest decision's number."""
        for run_id, run in self._runs.items():
            if not run.has_ended and (number := run.resumption) is not None:
                yield run_id, number

    def run(self, run_id: str) -> PublishedRun:
        """Return the run's events. Later events are added to the same object."""
        return self._runs[run_id]
