"""Read model of registry decisions and trainers' outcomes: a fold over ordered events."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from shared.events import (
    Artefact,
    CheckpointSaved,
    Event,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)


@dataclass(frozen=True)
class Champion:
    """The version that is served; without an adapter it is the base model."""

    version: str
    adapter: Artefact | None


class RegistryState:
    """State of the fold. Applying events again is harmless if their order is kept."""

    def __init__(self) -> None:
        self._champions: dict[str, Champion] = {}
        self._batches: dict[tuple[str, str], str] = {}
        self._quarantined: defaultdict[str, set[str]] = defaultdict(set)
        self._answers: dict[tuple[str, int], VersionRegistered] = {}
        self._ended: set[str] = set()
        self._checkpoints: dict[tuple[str, int], CheckpointSaved] = {}

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
            case VersionWithdrawn():
                if event.quarantined and event.batch_id is not None:
                    self._quarantined[event.model].add(event.batch_id)
            case CheckpointSaved():
                self._checkpoints.setdefault((event.run_id, event.evaluation), event)
            case TrainingRolledBack():
                self._ended.add(event.run_id)
                if event.outcome == "rejected":
                    self._quarantined[event.model].add(event.batch_id)
            case _:
                pass

    def _register(self, event: VersionRegistered) -> None:
        if event.number == 0:
            self._champions.setdefault(event.model, Champion(event.version, event.adapter))
        if event.batch_id is not None:
            self._batches[event.model, event.version] = event.batch_id
        if event.run_id is not None:
            self._answers[event.run_id, event.evaluation] = event
            if event.answer != "reevaluate":
                self._ended.add(event.run_id)

    def champion(self, model: str) -> Champion | None:
        """Return None until the registry has registered the model's first version."""
        return self._champions.get(model)

    def quarantined_batches(self, model: str) -> Collection[str]:
        """Return the batches that are excluded from training and evaluation."""
        return frozenset(self._quarantined[model])

    def registry_answer(self, run_id: str, evaluation: int) -> VersionRegistered | None:
        """Return the registry's answer to a checkpoint, or None before it has answered."""
        return self._answers.get((run_id, evaluation))

    def published_checkpoint(self, run_id: str, evaluation: int) -> CheckpointSaved | None:
        """Return the first checkpoint that any trainer has published for an evaluation."""
        return self._checkpoints.get((run_id, evaluation))

    def has_ended(self, run_id: str) -> bool:
        """True if the run needs no more work: its version was promoted or waits for an operator,
        or the run was rolled back.
        """
        return run_id in self._ended
