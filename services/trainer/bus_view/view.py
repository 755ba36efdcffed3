"""Read model of the registry, trainer and dataset events that this trainer depends on."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from services.trainer.batch_queue import ResumedBatch
from services.trainer.bus_view.batches import AnnouncedBatches
from services.trainer.bus_view.controls import TrainingControls
from services.trainer.bus_view.gate_history import GateHistories
from services.trainer.bus_view.registry_state import Champion, PublishedRun, RegistryState
from services.trainer.bus_view.reward_history import RewardHistory
from services.trainer.bus_view.withdrawals import Withdrawals, WithdrawnExamples
from services.trainer.gate.budget import GateHistory
from services.trainer.gate.reward_hacking import CandidateStep
from shared.errors import BusUnavailable, ContractViolation, Misconfigured, Undecodable
from shared.events import (
    Artefact,
    CheckpointSaved,
    DeploymentFailed,
    Event,
    ExamplesWithdrawn,
    PauseEvent,
    RunCancelled,
    RunResumed,
    TrainingPaused,
    TrainingResumed,
    TrainingRolledBack,
    VersionDeployed,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)
from shared.events.hyperparameters import Configuration
from shared.kafka.topic_reader import TopicReader
from shared.logs import Log
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import (
    DATASET_WITHDRAWALS,
    MODELS_VERSIONS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_CONTROLS,
    TRAINING_ROLLBACKS,
)
from shared.service.runtime import Runtime

T = TypeVar("T")

VIEW_TOPICS = (
    DATASET_WITHDRAWALS,
    TRAINING_BATCHES,
    TRAINING_CONTROLS,
    TRAINING_CHECKPOINTS,
    TRAINING_ROLLBACKS,
    MODELS_VERSIONS,
)
VIEW_EVENTS: tuple[type[Event], ...] = (
    ExamplesWithdrawn,
    TrainingPaused,
    TrainingResumed,
    RunCancelled,
    RunResumed,
    CheckpointSaved,
    TrainingRolledBack,
    VersionRegistered,
    VersionPromoted,
    VersionRolledBack,
    VersionWithdrawn,
    VersionDeployed,
    DeploymentFailed,
)

_POLL_SECONDS = 0.2
_CANCELLATION_POLL_SECONDS = 0.5
_LOG_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class EvaluationInputs:
    """State of the topics when an evaluation begins; `history` and `gates` are of the model's other
    runs.
    """

    champion: Champion
    quarantined: Collection[str]
    withdrawn: WithdrawnExamples
    history: Sequence[CandidateStep]
    gates: GateHistory


class BusView:
    """Answers questions about other services, as of the last `refresh`."""

    def __init__(self, reader: TopicReader, runtime: Runtime) -> None:
        """`reader` reads `VIEW_TOPICS`."""
        self._registry = RegistryState()
        self._batches = AnnouncedBatches()
        self._withdrawals = Withdrawals()
        self._controls = TrainingControls()
        self._rewards = RewardHistory()
        self._gates = GateHistories()
        self._reader = reader
        self._runtime = runtime
        self._refreshing = asyncio.Lock()
        self._unreadable: Misconfigured | None = None

    async def refresh(self) -> None:
        """Apply the new events. Several tasks may call it at a time: one reads, the others wait.
        Raises Misconfigured, from then on, if this trainer cannot read one of the events.

        A cancelled caller does not stop the reading: what the reader has returned once, it does not
        return again.
        """
        await asyncio.shield(asyncio.create_task(self._read_new()))

    async def _read_new(self) -> None:
        async with self._refreshing:
            if self._unreadable is not None:
                raise self._unreadable
            for record in await self._reader.read_new():
                self._apply(record)

    def champion(self, model: str) -> Champion | None:
        """Return None until the registry has registered the model's first version."""
        return self._registry.champion(model)

    def run(self, run_id: str) -> PublishedRun:
        """Return the run's events. Each `refresh` adds to the same object."""
        return self._registry.run(run_id)

    def is_cancelled(self, run_id: str) -> bool:
        """Return True if the run must not be trained. An outcome that was published before the
        cancellation was read is valid.
        """
        run = self._registry.run(run_id)
        has_outcome = run.has_ended or bool(run.checkpoints)
        return isinstance(run.control, RunCancelled) and not has_outcome

    def resumed_batches(self) -> Iterator[ResumedBatch]:
        """Yield the batches of resumed runs that have not ended."""
        for run_id, number in self._registry.resumptions():
            if (record := self._batches.record_of(run_id)) is not None:
                yield ResumedBatch(record, number)

    async def wait_for_cancellation(self, run_id: str) -> None:
        """Return as soon as an operator has cancelled the run. An unavailable broker delays it."""
        while not self.is_cancelled(run_id):
            await asyncio.sleep(_CANCELLATION_POLL_SECONDS)
            with suppress(BusUnavailable):
                await self.refresh()

    def pause_of(self, model: str) -> TrainingPaused | None:
        """Return the pause of a model's training, None if it is not paused."""
        return self._controls.pause_of(model)

    def configuration_of(self, adapter: Artefact) -> Configuration | None:
        """Return the configuration of the run that made an adapter, None if it is not known."""
        return self._registry.configuration_of(adapter)

    async def evaluation_inputs(self, model: str, run_id: str, log: Log) -> EvaluationInputs:
        """Return the inputs of an evaluation that begins now, as soon as the registry has
        registered a champion.
        """
        champion = await self._wait_for(
            lambda: self._registry.champion(model), "waiting for the registry's first version", log
        )
        return EvaluationInputs(
            champion,
            self._registry.quarantined_batches(model),
            self._withdrawals.for_model(model),
            self._rewards.steps_before(model, run_id),
            self._gates.before(model, run_id),
        )

    async def wait_for_answer(self, checkpoint: CheckpointSaved, log: Log) -> VersionRegistered:
        """Return the registry's answer to a checkpoint, as soon as it arrives."""
        answers = self._registry.run(checkpoint.run_id).answers
        answer = await self._wait_for(
            lambda: answers.get(checkpoint.evaluation), "waiting for the registry's answer", log
        )
        log.info(
            "registry answered",
            answer=answer.answer,
            version=answer.version,
            champion=answer.champion,
        )
        return answer

    def _apply(self, record: Record) -> None:
        if record.topic == TRAINING_BATCHES:
            self._batches.apply(record)
            return
        try:
            event = decode(record.value, record.headers, *VIEW_EVENTS).event
        except ContractViolation as error:
            # Continuing could train from an outdated champion or on withdrawn examples.
            where = f"{record.topic}-{record.partition}@{record.offset}"
            self._unreadable = Misconfigured(
                f"{where}: {error}; run services of compatible versions"
            )
            raise self._unreadable from error
        except Undecodable as error:
            self._runtime.log.warning(
                "unknown event skipped",
                topic=record.topic,
                offset=record.offset,
                reason=str(error),
            )
            return
        if isinstance(event, ExamplesWithdrawn):
            self._withdrawals.apply(event, record.position)
        elif isinstance(event, PauseEvent):
            self._controls.apply(event)
        else:
            self._registry.apply(event)
            self._rewards.apply(event)
            self._gates.apply(event)

    async def _wait_for(self, query: Callable[[], T | None], message: str, log: Log) -> T:
        clock, health = self._runtime.clock, self._runtime.health
        logged_at = clock.monotonic()
        while True:
            await self.refresh()
            if (result := query()) is not None:
                return result
            health.record_progress()
            if clock.monotonic() - logged_at >= _LOG_EVERY_SECONDS:
                log.info(message)
                logged_at = clock.monotonic()
            await asyncio.sleep(_POLL_SECONDS)
