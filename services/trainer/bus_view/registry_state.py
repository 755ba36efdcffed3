"""What the registry has said: who is champion of each model, and its answers to outcomes; and the
outcomes, whichever trainer's they are. A fold over events in order.
"""

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
    """The version that is served; no adapter means that it is the base itself."""

    version: str
    adapter: Artefact | None


class RegistryState:
    """State of the fold. Events may be applied again without harm as long as their order holds."""

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
                # An operator may go back for reasons of his own; the monitor does so because the
                # version did worse.
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
        """None while the registry has not named one."""
        return self._champions.get(model)

    def quarantined_batches(self, model: str) -> Collection[str]:
        """The batches that nothing is learned from and nothing is judged by."""
        return frozenset(self._quarantined[model])

    def registry_answer(self, run_id: str, evaluation: int) -> VersionRegistered | None:
        """The registry's answer to a checkpoint, None while there is none."""
        return self._answers.get((run_id, evaluation))

    def published_checkpoint(self, run_id: str, evaluation: int) -> CheckpointSaved | None:
        """The checkpoint that some trainer has published for an evaluation: the first one holds."""
        return self._checkpoints.get((run_id, evaluation))

    def has_ended(self, run_id: str) -> bool:
        """Whether nothing more is to be done for a run: its version was promoted or waits for a
        person, or it was rolled back.
        """
        return run_id in self._ended
