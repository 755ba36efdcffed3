"""What the others say that a trainer goes by: the registry, other trainers, and the dataset service
on what was withdrawn.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from services.trainer.bus_view.registry_state import Champion, RegistryState
from services.trainer.bus_view.reward_history import RewardHistory
from services.trainer.bus_view.withdrawals import Withdrawals
from shared.clock import Clock
from shared.errors import ContractViolation, Misconfigured, Undecodable
from shared.events import (
    CheckpointSaved,
    DeploymentFailed,
    Event,
    ExamplesWithdrawn,
    Position,
    TrainingRolledBack,
    VersionDeployed,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)
from shared.kafka.topic_reader import TopicReader
from shared.logs import Log
from shared.messaging.codec import decode
from shared.observability.health import Health

T = TypeVar("T")

VIEW_EVENTS: tuple[type[Event], ...] = (
    ExamplesWithdrawn,
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
_REMIND_SECONDS = 30.0


class BusView:
    """Three folds over one reading of the topics; each is as of the last `hear`."""

    def __init__(self, reader: TopicReader, clock: Clock, health: Health, log: Log) -> None:
        """`reader` reads `dataset.withdrawals`, `training.checkpoints`, `training.rollbacks` and
        `models.versions`.
        """
        self.champions = RegistryState()
        self.withdrawals = Withdrawals()
        self.history = RewardHistory()
        self._reader = reader
        self._clock = clock
        self._health = health
        self._log = log

    async def refresh(self) -> None:
        """Take in what was said since. Raises Misconfigured when a service has said what this one
        cannot read.
        """
        for record in await self._reader.read_new():
            try:
                event = decode(record.value, record.headers, *VIEW_EVENTS).event
            except ContractViolation as error:
                # To go on would be to train from, and compare with, a champion that may no longer
                # be one, or on what was withdrawn.
                where = f"{record.topic}-{record.partition}@{record.offset}"
                raise Misconfigured(
                    f"{where}: {error}; the services must be of versions that fit"
                ) from error
            except Undecodable as error:
                self._log.warning(
                    "not an event that is known here",
                    topic=record.topic,
                    offset=record.offset,
                    reason=str(error),
                )
                continue
            if isinstance(event, ExamplesWithdrawn):
                self.withdrawals.apply(
                    event,
                    Position(topic=record.topic, partition=record.partition, offset=record.offset),
                )
            else:
                self.champions.apply(event)
                self.history.apply(event)

    async def wait_for_champion(self, model: str, log: Log) -> Champion:
        """The champion as of now; waits for the registry to name one."""
        return await self._until(
            lambda: self.champions.champion(model),
            "waiting for the registry to name a champion",
            log,
        )

    async def wait_for_answer(self, checkpoint: CheckpointSaved, log: Log) -> VersionRegistered:
        """The registry's answer to a checkpoint; waits for it."""
        run_id, evaluation = checkpoint.run_id, checkpoint.evaluation
        answer = await self._until(
            lambda: self.champions.registry_answer(run_id, evaluation),
            "waiting for the registry's answer",
            log,
        )
        log.info(
            "registry answered",
            answer=answer.answer,
            version=answer.version,
            champion=answer.champion,
        )
        return answer

    async def _until(self, said: Callable[[], T | None], what: str, log: Log) -> T:
        reminded = self._clock.monotonic()
        while True:
            await self.refresh()
            if (found := said()) is not None:
                return found
            self._health.record_progress()
            if self._clock.monotonic() - reminded >= _REMIND_SECONDS:
                log.info(what)
                reminded = self._clock.monotonic()
            await asyncio.sleep(_POLL_SECONDS)
