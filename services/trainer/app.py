"""The shell: one batch after another, each from its announcement to the registry's answer."""

import asyncio
from collections.abc import Callable

from services.trainer.bases import Base
from services.trainer.bench import Bench
from services.trainer.champions import Champion, Champions
from services.trainer.child_process import ChildProcess, ignore
from services.trainer.examination import prepare
from services.trainer.failures import RunFailed
from services.trainer.own_answers import BASE, rehearsed
from services.trainer.progress import SOURCE, Progress
from services.trainer.runs import Outcome, Runs
from services.trainer.training_run import TrainingRun, configuration_of, failed
from services.trainer.withdrawals import Withdrawals
from shared.bus import Producer, Record, publish
from shared.clock import Clock
from shared.codec import decode
from shared.errors import ContractViolation, Misconfigured, Undecodable, Unusable
from shared.events import (
    BatchReady,
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
)
from shared.health import Health
from shared.identity import identity
from shared.logs import Log
from shared.metrics import Metrics
from shared.model_file import ModelFile, Models
from shared.reading import TopicReader
from shared.storage import ObjectStore
from shared.topics import TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS

HEARD_BACK: tuple[type[Event], ...] = (
    ExamplesWithdrawn,
    TrainingRolledBack,
    VersionRegistered,
    VersionPromoted,
    VersionRolledBack,
    VersionDeployed,
    DeploymentFailed,
)

CORRUPT_ADVICE = "compare the object store with its backup; the batch can be announced again once its files are whole"
POLL_SECONDS = 0.2
REMIND_SECONDS = 30.0


class Trainer:
    """Handles one batch at a time."""

    def __init__(
        self,
        models: Models,
        bases: dict[str, Base],
        store: ObjectStore,
        runs: Runs,
        child: ChildProcess,
        others: TopicReader,
        producer: Producer,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        log: Log,
    ) -> None:
        """`bases` are the models' base models, by model; `others` reads `dataset.withdrawals`, `training.rollbacks` and
        `models.versions`."""
        self._models = models
        self._bases = bases
        self._store = store
        self._runs = runs
        self._child = child
        self._others = others
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = log
        self._champions = Champions()
        self._withdrawals = Withdrawals()
        self._benches: dict[tuple[Base, str], Bench] = {}

    async def warm_up(self) -> None:
        """Have the child hold the first model's base, and know how the base itself answers and scores: every run needs that.
        Raises RunFailed when the base cannot be loaded."""
        model = self._models.files[min(self._models.files)]
        lane, settings = next(iter(model.lanes.items()))
        max_tokens = settings.training.max_tokens
        bench = self._bench(model, settings.training.precision)
        await bench.load()
        sets = await prepare(self._models, model.model, (), (), max_tokens, bench, self._runs, ignore)
        await bench.score(BASE, [*sets.golden, *sets.retention], max_tokens, ignore)
        await rehearsed(self._models, model.model, lane, max_tokens, bench, self._runs, ignore)

    async def handle(self, record: Record, owned: Callable[[], bool]) -> None:
        """Bring a batch to its end; returns early, with nothing published, when `owned` says that it is another trainer's now."""
        batch = decode(record.value, record.headers, BatchReady).event
        model = self._models.get(batch.model)
        run_id = identity("run", batch.batch_id)
        log = self._log.bind(model=batch.model, run=run_id, batch=batch.number)
        champion = await self._champion(model.model, log)
        if self._champions.has_ended(run_id):
            log.info("already ended")
            return
        progress = Progress(batch, run_id, self._producer, self._clock, self._metrics, self._health, log)
        bench = self._bench(model, configuration_of(model, batch).precision)
        run = TrainingRun(batch, run_id, model, self._models, self._store, self._runs, bench, progress, self._clock)
        log.info("run begins", champion=champion.version, examples=batch.counts.training)
        evaluation = 1
        while True:
            outcome = await self._outcome(run, evaluation, champion)
            progress.leave()
            if not owned():
                log.warning("another trainer has this batch now; nothing is published")
                return
            await self._publish(outcome, log)
            if isinstance(outcome, TrainingRolledBack):
                break
            answer = await self._answer(outcome, owned, log)
            if answer is None:
                return
            if answer.answer == "promoted":
                break
            evaluation += 1
            champion = await self._champion(model.model, log)
        self._runs.close(run_id)

    async def _outcome(self, run: TrainingRun, evaluation: int, champion: Champion) -> Outcome:
        recorded = self._runs.outcome(run.run_id, evaluation)
        if recorded is not None:
            return recorded
        batch, model = run.batch, run.model
        outcome: Outcome
        try:
            quarantined, withdrawn = self._champions.quarantined(batch.model), self._withdrawals.of(batch.model)
            outcome = await run.evaluate(evaluation, champion, quarantined, withdrawn)
        except RunFailed as failure:
            outcome = failed(batch, run.run_id, model, champion, run.bench.base, evaluation, failure.reason, failure.advice, self._clock)
        except Unusable as error:
            outcome = failed(batch, run.run_id, model, champion, run.bench.base, evaluation, str(error), CORRUPT_ADVICE, self._clock)
        self._runs.write_outcome(run.run_id, evaluation, outcome)
        return outcome

    async def _publish(self, outcome: Outcome, log: Log) -> None:
        saved = isinstance(outcome, CheckpointSaved)
        await publish(self._producer, TRAINING_CHECKPOINTS if saved else TRAINING_ROLLBACKS, outcome.model, outcome, SOURCE)
        told = "promotable" if isinstance(outcome, CheckpointSaved) else outcome.outcome
        self._metrics.count("ratchet_training_runs_total", model=outcome.model, outcome=told)
        reasons = "; ".join(outcome.verdict.reasons) if outcome.verdict else getattr(outcome, "reason", "")
        log.info("outcome", outcome=told, evaluation=outcome.evaluation, reasons=reasons)

    async def _champion(self, model: str, log: Log) -> Champion:
        """The champion as of now; waits for the registry to name one."""
        reminded = self._clock.monotonic()
        while True:
            await self._hear_others()
            if champion := self._champions.champion(model):
                return champion
            reminded = await self._wait(reminded, "waiting for the registry to name a champion", log)

    async def _answer(self, checkpoint: CheckpointSaved, owned: Callable[[], bool], log: Log) -> VersionRegistered | None:
        """The registry's answer to a checkpoint; None when the batch has become another trainer's meanwhile."""
        reminded = self._clock.monotonic()
        while owned():
            await self._hear_others()
            if answer := self._champions.answer(checkpoint.run_id, checkpoint.evaluation):
                log.info("registry answered", answer=answer.answer, version=answer.version, champion=answer.champion)
                return answer
            reminded = await self._wait(reminded, "waiting for the registry's answer", log)
        return None

    async def _wait(self, reminded: float, what: str, log: Log) -> float:
        self._health.progressed()
        if self._clock.monotonic() - reminded >= REMIND_SECONDS:
            log.info(what)
            reminded = self._clock.monotonic()
        await asyncio.sleep(POLL_SECONDS)
        return reminded

    async def _hear_others(self) -> None:
        for record in await self._others.newest():
            try:
                event = decode(record.value, record.headers, *HEARD_BACK).event
            except ContractViolation as error:
                # To go on would be to train from, and compare with, a champion that may no longer be one, or on what was withdrawn.
                where = f"{record.topic}-{record.partition}@{record.offset}"
                raise Misconfigured(f"{where}: {error}; the services must be of versions that fit") from error
            except Undecodable as error:
                self._log.warning("not an event that is known here", topic=record.topic, offset=record.offset, reason=str(error))
                continue
            if isinstance(event, ExamplesWithdrawn):
                self._withdrawals.apply(event, Position(topic=record.topic, partition=record.partition, offset=record.offset))
            else:
                self._champions.apply(event)

    def _bench(self, model: ModelFile, precision: str) -> Bench:
        key = (self._bases[model.model], precision)
        if key not in self._benches:
            self._benches[key] = Bench(self._child, self._bases[model.model], precision)
        return self._benches[key]
