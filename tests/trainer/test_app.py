"""The trainer with a fake training process, an in-memory bus, and a registry played by the test."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from structlog.testing import capture_logs

from services.trainer.app import Trainer
from services.trainer.batch_queue import Wait
from services.trainer.bus_view.view import VIEW_EVENTS, VIEW_TOPICS
from services.trainer.errors import RunFailed, RunInterrupted, TrainingProcessEnded
from services.trainer.gate.promotion_level import PastGate, promotion_level
from services.trainer.machine.bases import LocalBase
from services.trainer.protocol import (
    CheckPrompts,
    DescribeDevice,
    DeviceDescribed,
    EstimateMemory,
    Generate,
    Generated,
    GreedyAnswer,
    Load,
    Loaded,
    MemoryEstimate,
    Messages,
    PromptsChecked,
    Request,
    Score,
    Scores,
    Train,
    Trained,
)
from services.trainer.run_folder import WorkFolder
from services.trainer.worker.client import OnProgress, TrainingProcess, ignore_progress
from shared.clock import SystemClock
from shared.config.gate import GateSettings
from shared.config.model_file import BasePaths as DeclaredBase
from shared.config.model_file import LaneSettings, ModelFile
from shared.config.models import Models
from shared.config.training_window import TrainingWindow
from shared.errors import Misconfigured, PartitionLost, StorageUnavailable, UnknownModel
from shared.events import (
    Artefact,
    BatchReady,
    CheckpointSaved,
    Event,
    ExamplesWithdrawn,
    FrozenModel,
    Position,
    ProbeToken,
    TrainingPaused,
    TrainingProgressed,
    TrainingResumed,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
    WithdrawnBatch,
)
from shared.identity import identity
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import decode, encode
from shared.messaging.topics import (
    DATASET_WITHDRAWALS,
    MODELS_VERSIONS,
    TRAINING_CHECKPOINTS,
    TRAINING_CONTROLS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.observability.metrics import Metrics
from shared.observability.tracing import NOOP_TRACING, Tracing
from shared.storage.adapters import write_adapter
from shared.storage.object_store import MemoryStore
from tests.support.runtime import runtime_of
from tests.support.tickets import DIGEST, NOW, tickets, write_batch
from tests.trainer.histories import rolled_back_run

R = TypeVar("R", bound=FrozenModel)


class QuickChild(TrainingProcess):
    """Trains instantly: models with an adapter score `gain` more than the base. Raises the errors
    in `errors_to_raise`, in order. With `stops_at` it trains until it is interrupted, and saves the
    checkpoint of that step. Adapters trained at a rate above `forgets_above` answer differently.
    """

    def __init__(self, gain: float) -> None:
        super().__init__(0, structlog.stdlib.get_logger())
        self.gain = gain
        self.errors_to_raise: list[Exception] = []
        self.dies_at: type[FrozenModel] | None = None
        self.stops_at = 0
        self.interrupted: asyncio.Future[None] | None = None
        self.trained: list[Train] = []
        self.checkpoints_seen: list[list[str]] = []
        self.scored: list[Score] = []
        self.answered: list[Generate] = []
        self.answer = "a"
        self.forgets_above = 1.0
        self.refused: set[Messages] = set()
        self.inexact: set[Messages] = set()

    async def request(
        self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
    ) -> R:
        if self.errors_to_raise and not isinstance(
            request, Load | EstimateMemory | CheckPrompts | DescribeDevice
        ):
            raise self.errors_to_raise.pop(0)
        if self.dies_at is not None and isinstance(request, self.dies_at):
            raise RuntimeError("power")
        if self.stops_at and isinstance(request, Train):
            (request.checkpoints / f"checkpoint-{self.stops_at}").mkdir(parents=True)
            (request.checkpoints / f"checkpoint-{self.stops_at}" / "state").write_bytes(b"state")
            self.interrupted = asyncio.get_running_loop().create_future()
            await self.interrupted
            raise RunInterrupted(self.stops_at)
        reply = self._reply(request)
        assert isinstance(reply, expected)
        return reply

    async def interrupt(self) -> bool:
        if self.interrupted is None or self.interrupted.done():
            return False
        self.interrupted.set_result(None)
        return True

    def _reply(self, request: Request) -> FrozenModel:
        match request:
            case Load():
                return Loaded()
            case EstimateMemory():
                return MemoryEstimate(needed=1, limit=2)
            case DescribeDevice():
                return DeviceDescribed(device="cpu", precision="fp32", memory=2)
            case CheckPrompts():
                return self._check(request)
            case Train():
                self.trained.append(request)
                self.checkpoints_seen.append(
                    sorted(path.name for path in request.checkpoints.glob("checkpoint-*"))
                )
                request.out.mkdir(parents=True)
                rate = request.configuration.learning_rate
                (request.out / "adapter_model.safetensors").write_text(str(rate))
                return Trained(training_loss=0.1, steps=1, tokens=1, seconds=0.1)
            case Score():
                self.scored.append(request)
                gain = self.gain if request.adapter else 0.0
                return Scores(
                    scores=tuple(
                        -1.0 + gain + index / 1000 for index in range(len(request.samples))
                    )
                )
            case Generate():
                self.answered.append(request)
                weights = request.adapter and request.adapter / "adapter_model.safetensors"
                has_forgotten = weights and float(weights.read_text()) > self.forgets_above
                text = "forgotten" if has_forgotten else self.answer
                token = ProbeToken(text=text, logprob=-0.1, lead=0.5)
                answer = GreedyAnswer(text=text, tokens=(token,))
                return Generated(
                    probes=(answer,) * len(request.probes), prompts=(answer,) * len(request.prompts)
                )

    def _check(self, request: CheckPrompts) -> PromptsChecked:
        return PromptsChecked(
            refused={
                index: "no tool turns"
                for index, prompt in enumerate(request.prompts)
                if prompt in self.refused
            },
            inexact=tuple(
                index for index, prompt in enumerate(request.prompts) if prompt in self.inexact
            ),
        )


@dataclass
class FakeTopicReader:
    """Reads the topics of the bus view from memory, as the real reader does from Kafka."""

    bus: MemoryBus
    read: dict[str, int] = field(default_factory=dict)

    async def read_new(self) -> list[Record]:
        records = []
        for topic in VIEW_TOPICS:
            log = self.bus.topics.get(topic, [])
            records += log[self.read.get(topic, 0) :]
            self.read[topic] = len(log)
        return records


@dataclass
class World:
    """Everything that outlives a trainer, and a way to start one."""

    folder: Path
    bus: MemoryBus = field(default_factory=MemoryBus)
    store: MemoryStore = field(default_factory=MemoryStore)
    child: QuickChild = field(default_factory=lambda: QuickChild(0.5))
    tracing: Tracing = NOOP_TRACING
    metrics: Metrics = field(default_factory=lambda: Metrics("trainer"))

    def trainer(self, model: ModelFile | None = None) -> Trainer:
        model = model or ModelFile(
            model="m",
            base=DeclaredBase(training="base", serving="base/model.gguf"),
            lanes={"adaptive": LaneSettings(rehearsal="none")},
        )
        return Trainer(
            models=Models({"m": model}, self.folder),
            bases={"m": LocalBase(self.folder, "base", DIGEST)},
            store=self.store,
            work=WorkFolder(self.folder),
            process=self.child,
            view_reader=FakeTopicReader(self.bus),
            producer=self.bus,
            runtime=runtime_of(
                "trainer",
                SystemClock(),
                self.metrics,
                log=structlog.stdlib.get_logger(),
                tracing=self.tracing,
            ),
        )

    async def publish(self, event: Event) -> None:
        value, headers = encode(event, "registry")
        await self.bus.send(MODELS_VERSIONS, b"m", value, headers)

    async def withdraw(self, *feedback_ids: str) -> None:
        """Publish a withdrawal as the dataset service does."""
        event = ExamplesWithdrawn(
            event_id=feedback_ids[0],
            occurred_at=NOW,
            model="m",
            shard=0,
            user="u",
            forgotten="f",
            received=Position(topic="feedback.received", partition=0, offset=0),
            waiting=0,
            batches=(WithdrawnBatch(batch_id="b", number=0, feedback_ids=feedback_ids),),
        )
        await self.bus.send(DATASET_WITHDRAWALS, b"m", *encode(event, "dataset"))

    async def control(self, decision: type[TrainingPaused | TrainingResumed], number: int) -> None:
        """Publish an operator's decision as the registry does."""
        event = decision(
            event_id=f"{decision.__name__}-{number}",
            occurred_at=NOW,
            model="m",
            number=number,
            actor="ada",
            reason="an incident",
        )
        await self.bus.send(TRAINING_CONTROLS, b"m", *encode(event, "registry"))

    async def answer(self, evaluation: int, answer: str, champion: str) -> None:
        """Publish the registry's answer to the checkpoint of an evaluation, once it exists."""
        while not (
            saved := [event for event in self.checkpoints if event.evaluation == evaluation]
        ):
            await asyncio.sleep(0.01)
        await self.publish(
            VersionRegistered.model_validate(
                {
                    "event_id": f"a{evaluation}",
                    "occurred_at": NOW,
                    "model": "m",
                    "version": "v1",
                    "number": 1,
                    "champion": champion,
                }
                | {
                    "run_id": saved[0].run_id,
                    "batch_id": saved[0].batch_id,
                    "evaluation": evaluation,
                    "answer": answer,
                }
            )
        )

    @property
    def card(self) -> str:
        """The model card of the only adapter in the store."""
        (key,) = [key for key in self.store.list_keys("adapters") if key.endswith("/README.md")]
        return self.store.get(key).decode()

    def events(self, topic: str) -> list[Event]:
        return [
            decode(record.value, record.headers, *VIEW_EVENTS, TrainingProgressed).event
            for record in self.bus.topics.get(topic, [])
        ]

    @property
    def checkpoints(self) -> list[CheckpointSaved]:
        return [
            event
            for event in self.events(TRAINING_CHECKPOINTS)
            if isinstance(event, CheckpointSaved)
        ]

    @property
    def rollbacks(self) -> list[TrainingRolledBack]:
        return [
            event
            for event in self.events(TRAINING_ROLLBACKS)
            if isinstance(event, TrainingRolledBack)
        ]


async def started_world(folder: Path) -> World:
    """Return a world whose champion is the base."""
    world = World(folder)
    await world.publish(
        VersionRegistered(
            event_id="0",
            occurred_at=NOW,
            model="m",
            version="v0",
            number=0,
            answer="promoted",
            champion="v0",
        )
    )
    return world


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await started_world(tmp_path)


def record_of(batch: BatchReady) -> Record:
    value, headers = encode(batch, "dataset")
    return Record("training.batches", 0, batch.number, b"m", value, tuple(headers))


def a_batch(world: World, model: str = "m", number: int = 0) -> BatchReady:
    return write_batch(world.store, model, number, tickets(0, 10), tickets(500, 20))


async def is_owner() -> bool:
    return True


async def is_not_owner() -> bool:
    return False


async def test_better_candidate_is_published_and_waits_for_answer(
    world: World,
) -> None:
    batch = a_batch(world)
    handling = asyncio.create_task(world.trainer().handle(record_of(batch), is_owner))
    await asyncio.sleep(0.5)
    assert len(world.checkpoints) == 1
    assert not handling.done()
    await world.answer(1, "promoted", "v1")
    await handling
    assert world.bus.topics[TRAINING_PROGRESS]
    assert world.checkpoints[0].event_id == identity(
        "CheckpointSaved", identity("run", batch.batch_id), 1
    )


def with_golden(world: World) -> ModelFile:
    golden = [
        {"messages": [turn.model_dump() for turn in ticket.messages], "answer": ticket.answer}
        for ticket in tickets(900, 12)
    ]
    (world.folder / "golden.jsonl").write_text("\n".join(map(json.dumps, golden)))
    return ModelFile(
        model="m",
        base=DeclaredBase(training="base", serving="base/model.gguf"),
        lanes={"adaptive": LaneSettings(rehearsal="none")},
        gate=GateSettings(golden="golden.jsonl"),
    )


async def test_warm_up_caches_golden_results_of_the_base(
    world: World,
) -> None:
    """The base is the champion, so a run needs nothing more from it on golden. Eight examples of
    golden are answered, and as many of held-out.
    """
    trainer = world.trainer(with_golden(world))
    await trainer.warm_up()
    (scored,), (answered,) = world.child.scored, world.child.answered
    assert (len(scored.samples), len(answered.prompts)) == (12, 8)
    world.child.gain = -0.5
    await trainer.handle(record_of(a_batch(world)), is_owner)
    of_champion = [request for request in world.child.scored[1:] if request.adapter is None]
    assert [len(request.samples) for request in of_champion] == [20]
    assert [
        len(request.prompts) for request in world.child.answered[1:] if request.adapter is None
    ] == [8]


async def test_warm_up_skips_golden_if_a_version_is_champion(world: World) -> None:
    adapter = Artefact(uri="adapters/m/r/manifest.json", digest=DIGEST)
    promoted = VersionPromoted(
        event_id="p",
        occurred_at=NOW,
        model="m",
        version="v9",
        actor="trainer",
        reason="better",
        adapter=adapter,
    )
    await world.publish(promoted)
    await world.trainer(with_golden(world)).warm_up()
    assert (world.child.scored, world.child.answered) == ([], [])


async def test_reevaluation_compares_with_the_new_champion(
    world: World,
) -> None:
    handling = asyncio.create_task(world.trainer().handle(record_of(a_batch(world)), is_owner))
    while not world.checkpoints:
        await asyncio.sleep(0.01)
    await world.publish(
        VersionPromoted(
            event_id="p",
            occurred_at=NOW,
            model="m",
            version="v9",
            actor="operator",
            reason="by hand",
        )
    )
    first_card = world.card
    await world.answer(1, "reevaluate", "v9")
    await world.answer(2, "promoted", "v1")
    await handling
    first, second = world.checkpoints
    assert "Decision: promote, against `v0`" in first_card
    assert "Decision: promote, against `v9`" in world.card
    assert [first.verdict.baseline_version, second.verdict.baseline_version] == ["v0", "v9"]
    assert first.adapter == second.adapter
    assert len(world.child.scored) == 2  # base and candidate, once each
    assert len(world.child.trained) == 1


@pytest.mark.parametrize(("gain", "outcome"), [(0.0, "inconclusive"), (-0.5, "rejected")])
async def test_candidate_without_gain_is_rolled_back_at_once(
    world: World, gain: float, outcome: str
) -> None:
    world.child.gain = gain
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    assert [event.outcome for event in world.rollbacks] == [outcome]
    assert world.rollbacks[0].verdict is not None
    assert "Decision: " + world.rollbacks[0].verdict.decision in world.card
    assert not world.checkpoints


async def test_outcome_has_answer_metrics_and_mean_reward(
    world: World,
) -> None:
    """The child answers "a" to every prompt, which is not a ticket's JSON; the examples of a
    ticket's batch have a reward of 1.
    """
    world.child.gain = 0.0
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    (outcome,) = world.rollbacks
    assert outcome.verdict is not None
    assert outcome.metrics is not None
    measures = {measure.name: measure for measure in outcome.verdict.measures}
    assert {measure.set for measure in outcome.verdict.measures} == {"held_out"}
    assert (measures["perplexity"].examples, measures["exact_match"].examples) == (20, 8)
    assert (measures["exact_match"].candidate, measures["json_validity"].candidate) == (0, 0)
    assert outcome.metrics.mean_reward == 1


@pytest.mark.parametrize(("thinking", "valid"), [("drop", 1.0), ("keep", 0.0)])
async def test_answers_are_measured_without_reasoning(
    world: World, thinking: str, valid: float
) -> None:
    world.child.answer, world.child.gain = "<think>Which queue?</think>\n{}", 0.0
    base = DeclaredBase(training="base", serving="base/model.gguf")
    model = ModelFile.model_validate({"model": "m", "base": base, "thinking": thinking})
    await world.trainer(model).handle(record_of(a_batch(world)), is_owner)
    (outcome,) = world.rollbacks
    assert outcome.verdict is not None
    measures = {measure.name: measure.candidate for measure in outcome.verdict.measures}
    assert measures["json_validity"] == valid


async def test_examples_that_the_template_refuses_are_skipped(world: World) -> None:
    """A training and a held-out example, and one of the golden set."""
    refused = [tickets(1, 1)[0], tickets(505, 1)[0], tickets(903, 1)[0]]
    world.child.refused = {sample.messages for sample in refused}
    world.child.gain = 0.0
    await world.trainer(with_golden(world)).handle(record_of(a_batch(world)), is_owner)
    (outcome,) = world.rollbacks
    assert outcome.outcome == "inconclusive"
    assert outcome.metrics is not None
    assert (outcome.metrics.examples_new, outcome.metrics.examples_skipped) == (9, 3)
    (trained,) = world.child.trained
    assert not world.child.refused & {sample.messages for sample in trained.examples}
    # Held-out and golden, with the champion and with the candidate.
    assert [len(scored.samples) for scored in world.child.scored] == [19, 11, 19, 11]
    for scored in world.child.scored:
        assert not world.child.refused & {sample.messages for sample in scored.samples}


async def test_a_batch_that_the_template_refuses_names_the_reason(world: World) -> None:
    world.child.refused = {sample.messages for sample in tickets(0, 10)}
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    (outcome,) = world.rollbacks
    assert outcome.outcome == "failed"
    assert outcome.reason == "no training example of the batch can be rendered: no tool turns"
    assert not world.child.trained


async def test_probes_are_prompts_that_a_server_renders_alike(world: World) -> None:
    """Probes are the newest held-out prompts first."""
    inexact = tickets(517, 3)
    world.child.inexact = {sample.messages for sample in inexact}
    world.child.gain = 0.0
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    probes = [request.probes for request in world.child.answered if request.probes]
    assert probes[0][0] == tickets(516, 1)[0].messages
    assert len(world.child.scored[0].samples) == 20


async def test_reward_hacking_alarm_blocks_promotion(world: World) -> None:
    """Rewards -0.5, 0, 0.5 and now 1 rise by 1.5; held-out changes of three times -0.2 and now +0.5
    are -0.025 on average.
    """
    for hour, reward in enumerate((-0.5, 0.0, 0.5)):
        event = rolled_back_run(f"run {hour}", reward, -0.2, NOW + timedelta(hours=hour))
        await world.bus.send(TRAINING_ROLLBACKS, b"m", *encode(event, "trainer"))
    trainer = world.trainer()
    await trainer.handle(record_of(a_batch(world)), is_owner)
    outcome = world.rollbacks[-1]
    assert not world.checkpoints
    assert outcome.outcome == "inconclusive"
    assert outcome.reason.startswith(
        "reward hacking suspected: over 4 candidates the mean reward of their training "
        "examples rose by 1.500"
    )
    assert (
        world.metrics.registry.get_sample_value("ratchet_training_reward_hacking", {"model": "m"})
        == 1
    )


async def test_gates_of_the_model_are_counted_on_the_topics(world: World) -> None:
    """Three outcomes of an earlier version, then one of this trainer, then one of another worker,
    whose batch came by hand: the number of a batch does not matter.
    """
    world.child.gain = -0.001
    for hour in range(3):
        event = rolled_back_run(f"run {hour}", 0.5, 0.1, NOW + timedelta(hours=hour - 3))
        await world.bus.send(TRAINING_ROLLBACKS, b"m", *encode(event, "trainer"))
    budgets = []
    for number in (0, 7):
        await world.trainer().handle(record_of(a_batch(world, number=number)), is_owner)
        verdict = world.rollbacks[-1].verdict
        assert verdict is not None
        assert verdict.budget is not None
        budgets.append(verdict.budget)
    first, second = budgets
    assert (first.gate, second.gate) == (4, 5)
    assert first.level == pytest.approx(0.9 * promotion_level([PastGate(False)] * 3, 0.95))
    assert second.level == pytest.approx(0.9 * first.next_level)


async def test_run_resumes_after_crashes_without_repeating_work(world: World) -> None:
    """The trainer dies in its first evaluation, and again while it waits for the answer: it trains
    once and publishes one outcome.
    """
    record = record_of(a_batch(world))
    world.child.dies_at = Score
    with pytest.raises(RuntimeError, match="power"):
        await world.trainer().handle(record, is_owner)
    world.child.dies_at = None
    handling = asyncio.create_task(world.trainer().handle(record, is_owner))
    while not world.checkpoints:
        await asyncio.sleep(0.01)
    handling.cancel()
    scored = len(world.child.scored)
    handling = asyncio.create_task(world.trainer().handle(record, is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    assert len(world.child.trained) == 1
    assert len(world.child.scored) == scored
    assert len(world.checkpoints) == 1


async def test_ended_run_is_not_repeated(world: World) -> None:
    world.child.gain = -0.5
    record = record_of(a_batch(world))
    await world.trainer().handle(record, is_owner)
    await world.trainer().handle(record, is_owner)
    assert (len(world.rollbacks), len(world.child.trained)) == (1, 1)


async def test_nothing_is_published_for_another_trainers_batch(world: World) -> None:
    with pytest.raises(PartitionLost):
        await world.trainer().handle(record_of(a_batch(world)), is_not_owner)
    assert not world.checkpoints
    assert not world.rollbacks


async def test_run_fails_if_the_training_process_dies_twice(
    world: World,
) -> None:
    world.child.gain = 0.0
    world.child.errors_to_raise = [TrainingProcessEnded("killed")]
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    world.child.errors_to_raise = [
        TrainingProcessEnded("killed", out_of_memory=True),
        TrainingProcessEnded("killed", out_of_memory=True),
    ]
    await world.trainer().handle(
        record_of(write_batch(world.store, "m", 1, tickets(0, 10), [])), is_owner
    )
    assert [event.outcome for event in world.rollbacks] == ["inconclusive", "failed"]
    assert "batch_size 2 (now 5" in world.rollbacks[1].advice


async def test_untrainable_batches_fail_with_advice(world: World) -> None:
    world.child.errors_to_raise = [RunFailed("the loss is nan", "lower the rate")]
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    altered = write_batch(world.store, "m", 1, tickets(0, 10), [])
    world.store.objects["batches/m/1/training.jsonl"] = b"{}"
    await world.trainer().handle(record_of(altered), is_owner)
    empty = write_batch(world.store, "m", 2, [], [])
    await world.trainer().handle(record_of(empty), is_owner)
    assert [event.outcome for event in world.rollbacks] == ["failed"] * 3
    assert [event.advice for event in world.rollbacks if not event.advice] == []
    assert "altered" in world.rollbacks[1].reason


async def test_withdrawn_examples_are_excluded_and_position_recorded(
    world: World,
) -> None:
    await world.withdraw("0-training-0", "0-training-1", "0-held_out-0")
    await world.withdraw("another")
    handling = asyncio.create_task(world.trainer().handle(record_of(a_batch(world)), is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    assert list(world.child.trained[0].examples) == tickets(2, 8)
    assert tickets(500, 1)[0] not in world.child.scored[0].samples
    assert world.checkpoints[0].withdrawn_through == Position(
        topic=DATASET_WITHDRAWALS, partition=0, offset=1
    )


async def test_outcomes_have_lineage_parent_and_base(world: World) -> None:
    """Lineage, parent and base of a checkpoint from the base, of a rollback that continues its
    adapter, and of a failed run.
    """
    handling = asyncio.create_task(world.trainer().handle(record_of(a_batch(world)), is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    (saved,) = world.checkpoints
    assert (saved.lineage, saved.parent_version, saved.parent_adapter) == ("continue", "v0", None)
    assert (saved.base, saved.base_digest) == ("base", DIGEST)
    assert saved.metrics.objectives == ("supervised",)
    promoted = VersionPromoted(
        event_id="p",
        occurred_at=NOW,
        model="m",
        version="v1",
        adapter=saved.adapter,
        actor="operator",
        reason="by hand",
    )
    await world.publish(promoted)
    world.child.gain = 0.5
    await world.trainer().handle(
        record_of(write_batch(world.store, "m", 1, tickets(0, 10), tickets(500, 20))), is_owner
    )
    world.child.errors_to_raise = [RunFailed("the loss is nan", "lower the rate")]
    await world.trainer().handle(
        record_of(write_batch(world.store, "m", 2, tickets(0, 10), [])), is_owner
    )
    assert [event.outcome for event in world.rollbacks] == ["inconclusive", "failed"]
    for event in world.rollbacks:
        assert (event.lineage, event.parent_version, event.parent_adapter) == (
            "continue",
            "v1",
            saved.adapter,
        )
        assert (event.base, event.base_digest) == ("base", DIGEST)
    assert [request.parent is not None for request in world.child.trained] == [False, True]


async def test_champion_of_another_base_fails_before_training(
    world: World,
) -> None:
    adapter = write_adapter(
        world.store, "adapters/m/r", {"adapter_model.safetensors": b""}, "sha256:" + "1" * 64
    )
    promoted = VersionPromoted(
        event_id="p",
        occurred_at=NOW,
        model="m",
        version="v1",
        adapter=adapter,
        actor="operator",
        reason="by hand",
    )
    await world.publish(promoted)
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    (refused,) = world.rollbacks
    assert refused.outcome == "failed"
    assert "sha256:11" in refused.reason
    assert "base.training" in refused.advice
    assert not world.child.trained


async def test_resumed_run_keeps_its_training_set(world: World) -> None:
    record = record_of(a_batch(world))
    world.child.dies_at = Train
    with pytest.raises(RuntimeError, match="power"):
        await world.trainer().handle(record, is_owner)
    world.child.dies_at = None
    await world.withdraw("0-training-0")
    handling = asyncio.create_task(world.trainer().handle(record, is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    assert list(world.child.trained[0].examples) == tickets(0, 10)
    assert world.checkpoints[0].withdrawn_through is None, (
        "the registry needs the position up to which withdrawals were read"
    )


async def test_fully_withdrawn_batch_fails_with_reason(world: World) -> None:
    await world.withdraw(*(f"0-training-{index}" for index in range(10)))
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    (failed,) = world.rollbacks
    assert (failed.outcome, failed.reason) == (
        "failed",
        "all training examples of the batch were withdrawn",
    )
    assert not world.child.trained


async def test_batch_of_undeclared_model_is_a_dead_letter(world: World) -> None:
    with pytest.raises(UnknownModel):
        await world.trainer().handle(record_of(a_batch(world, "stranger")), is_owner)


async def test_incompatible_registry_event_stops_the_trainer(world: World) -> None:
    await world.bus.send(
        MODELS_VERSIONS,
        b"m",
        b"{}",
        [("ce_type", b"ratchet.Novelty.v1"), ("ce_specversion", b"1.0")],
    )
    value, headers = encode(
        VersionPromoted(
            event_id="p",
            occurred_at=NOW,
            model="m",
            version="v9",
            actor="operator",
            reason="by hand",
        ),
        "registry",
    )
    await world.bus.send(MODELS_VERSIONS, b"m", value.replace(b"version", b"wersion"), headers)
    with pytest.raises(Misconfigured, match="version"):
        await world.trainer().handle(record_of(a_batch(world)), is_owner)


async def wait_until_training(world: World) -> None:
    async with asyncio.timeout(10):
        while world.child.interrupted is None:
            await asyncio.sleep(0.01)


async def test_stopped_run_resumes_on_another_worker_and_cleans_up(
    world: World, tmp_path: Path
) -> None:
    world.child.stops_at, world.child.gain = 3, -0.5
    record, first = record_of(a_batch(world)), world.trainer()
    handling = asyncio.create_task(first.handle(record, is_owner))
    await wait_until_training(world)
    await first.pause(5)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert not world.rollbacks
    assert any(key.startswith("unfinished/") for key in world.store.objects)
    elsewhere = World(tmp_path / "elsewhere", world.bus, world.store, QuickChild(-0.5))
    await elsewhere.trainer().handle(record, is_owner)
    assert elsewhere.child.checkpoints_seen == [["checkpoint-3"]]
    assert [event.outcome for event in world.rollbacks] == ["rejected"]
    assert not [key for key in world.store.objects if key.startswith("unfinished/")]


async def test_run_resumes_here_if_a_rebalance_keeps_its_partition(world: World) -> None:
    world.child.stops_at, world.child.gain = 3, -0.5
    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(record_of(a_batch(world)), is_owner))
    await wait_until_training(world)
    await trainer.pause(5)
    world.child.stops_at = 0
    await trainer.after_rebalance()
    await handling
    assert world.child.checkpoints_seen == [["checkpoint-3"]]
    assert [event.outcome for event in world.rollbacks] == ["rejected"]


async def test_run_is_abandoned_if_a_rebalance_moves_its_partition(world: World) -> None:
    world.child.stops_at = 3
    here = True

    async def is_owner_here() -> bool:
        return here

    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(record_of(a_batch(world)), is_owner_here))
    await wait_until_training(world)
    await trainer.pause(5)
    here = False
    await trainer.after_rebalance()
    with pytest.raises(PartitionLost):
        await handling
    assert not world.rollbacks
    assert not world.checkpoints


async def test_pause_times_out_and_a_late_checkpoint_does_not_block(
    world: World,
) -> None:
    """The child stops only after the rebalance is over, and this trainer still owns the run."""

    class SlowChild(QuickChild):
        async def interrupt(self) -> bool:
            return bool(await asyncio.get_running_loop().create_future())

    world.child = SlowChild(-0.5)
    world.child.stops_at = 3
    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(record_of(a_batch(world)), is_owner))
    await wait_until_training(world)
    async with asyncio.timeout(5):
        with capture_logs() as lines:
            await trainer.pause(0.1)
    (line,) = lines
    assert line["log_level"] == "warning"
    assert line["event"].startswith(
        "the running step did not end within 0.1 s; the run will resume"
    )
    await trainer.after_rebalance()
    world.child.stops_at = 0
    assert world.child.interrupted is not None
    world.child.interrupted.set_result(None)
    async with asyncio.timeout(5):
        await handling
    assert world.child.checkpoints_seen == [["checkpoint-3"]]


async def test_outcome_published_by_another_trainer_is_not_repeated(
    world: World, tmp_path: Path
) -> None:
    """A worker sleeps just before it publishes, still believes that it owns the batch when it wakes
    up, and has another outcome.
    """
    record = record_of(a_batch(world))
    woken = asyncio.Event()

    async def is_owner_after_sleep() -> bool:
        await woken.wait()
        return True

    world.child.gain = -0.5
    sleeping = asyncio.create_task(world.trainer().handle(record, is_owner_after_sleep))
    while not list(world.folder.glob("runs/*/outcome-1.json")):
        await asyncio.sleep(0.01)
    elsewhere = World(tmp_path / "elsewhere", world.bus, world.store, QuickChild(0.5))
    handling = asyncio.create_task(elsewhere.trainer().handle(record, is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    woken.set()
    await sleeping
    assert (len(world.checkpoints), len(world.rollbacks)) == (1, 0)


async def test_full_disk_fails_the_run_and_next_batch_is_trained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the plan nor the failed outcome fits on the disk; then there is space again."""
    world.child.gain = -0.5

    def disk_full(*_: object) -> None:
        raise StorageUnavailable("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shared.storage.object_store.FsspecStore.put", disk_full)
        await world.trainer().handle(record_of(a_batch(world)), is_owner)
    await world.trainer().handle(
        record_of(write_batch(world.store, "m", 1, tickets(0, 10), tickets(500, 20))), is_owner
    )
    assert [event.outcome for event in world.rollbacks] == ["failed", "rejected"]
    assert "no space left" in world.rollbacks[0].reason
    assert "RATCHET_WORK" in world.rollbacks[0].advice


async def test_batch_waits_for_its_window_unless_its_run_started(world: World) -> None:
    """The window opens in an hour for one hour, so it is closed now."""
    soon = SystemClock().now() + timedelta(hours=1)
    window = TrainingWindow(opens=f"{soon:%H}:00", closes=f"{soon + timedelta(hours=1):%H}:00")
    model = ModelFile.model_validate(
        {
            "model": "m",
            "base": {"training": "base", "serving": "b"},
            "lanes": {"adaptive": {"window": window.model_dump()}},
        }
    )
    record = record_of(a_batch(world))
    trainer = world.trainer(model)
    wait = trainer.wait_of(record)
    assert wait is not None
    assert wait.until == soon.replace(minute=0, second=0, microsecond=0)
    assert world.trainer().wait_of(record) is None
    assert trainer.wait_of(record_of(a_batch(world, "stranger"))) is None
    assert trainer.wait_of(replace(record, value=b"{}")) is None
    world.child.dies_at = Train
    with pytest.raises(RuntimeError, match="power"):
        await trainer.handle(record, is_owner)
    assert trainer.wait_of(record) is None, "a run that has started continues"


async def test_paused_model_starts_no_run_and_ends_the_running_one(world: World) -> None:
    """The decision with the highest number counts, also when an earlier one is repeated."""
    record, started = record_of(a_batch(world)), record_of(a_batch(world, number=1))
    trainer = world.trainer()
    world.child.dies_at = Train
    with pytest.raises(RuntimeError, match="power"):
        await trainer.handle(started, is_owner)
    await world.control(TrainingPaused, 1)
    await trainer.refresh()
    assert trainer.wait_of(record) == Wait("training paused by ada: an incident")
    assert trainer.wait_of(started) is None, "a run that has started continues"
    restarted = world.trainer()
    await restarted.refresh()
    assert restarted.wait_of(record) == trainer.wait_of(record)
    await world.control(TrainingResumed, 2)
    await world.control(TrainingPaused, 1)
    await trainer.refresh()
    assert trainer.wait_of(record) is None


async def test_seconds_to_the_first_verdict_are_measured_once(
    world: World,
) -> None:
    """The batch was announced a minute ago. The second verdict of a re-evaluation is not
    measured.
    """
    trainer = world.trainer()
    record = replace(record_of(a_batch(world)), timestamp=datetime.now(UTC) - timedelta(seconds=60))
    handling = asyncio.create_task(trainer.handle(record, is_owner))
    await world.answer(1, "reevaluate", "v0")
    await world.answer(2, "promoted", "v1")
    await handling
    read, labels = world.metrics.registry.get_sample_value, {"model": "m", "lane": "adaptive"}
    assert read("ratchet_training_verdict_seconds_count", labels) == 1
    seconds = read("ratchet_training_verdict_seconds_sum", labels)
    assert seconds is not None
    assert 60 < seconds < 90
