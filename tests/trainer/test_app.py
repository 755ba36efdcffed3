"""The shell, with a child that learns at once, a bus in memory, and a registry played by the test."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import structlog

from services.trainer.app import Trainer
from services.trainer.bus_view.view import VIEW_EVENTS
from services.trainer.errors import ChildProcessEnded, RunFailed, RunInterrupted
from services.trainer.machine.bases import LocalBase
from services.trainer.protocol import (
    EstimateMemory,
    Generate,
    Generated,
    Load,
    Loaded,
    MemoryEstimate,
    Request,
    Score,
    Scores,
    Train,
    Trained,
)
from services.trainer.run_folder import RunFolders
from services.trainer.worker.client import OnProgress, TrainingProcess, ignore_progress
from shared.clock import SystemClock
from shared.config.model_file import BasePaths as DeclaredBase
from shared.config.model_file import GateSettings, ModelFile, Models
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
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.tracing import NOOP_TRACING, Tracing
from shared.storage.adapters import write_adapter
from shared.storage.object_store import MemoryStore
from tests.trainer.histories import rolled_back_run
from tests.trainer.tickets import DIGEST, NOW, tickets, write_batch

R = TypeVar("R", bound=FrozenModel)


class QuickChild(TrainingProcess):
    """Learns at once: what wears an adapter scores `gain` more than the bare base. Raises what
    `trouble` holds, first thing first. With `stops_at` it trains until it is interrupted, and
    leaves the checkpoint of that step.
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

    async def ask(
        self, request: Request, expected: type[R], heard: OnProgress = ignore_progress
    ) -> R:
        if self.errors_to_raise and not isinstance(request, Load | EstimateMemory):
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
            case Train():
                self.trained.append(request)
                self.checkpoints_seen.append(
                    sorted(path.name for path in request.checkpoints.glob("checkpoint-*"))
                )
                request.out.mkdir(parents=True)
                (request.out / "adapter_model.safetensors").write_bytes(b"weights")
                return Trained(training_loss=0.1, steps=1, tokens=1, seconds=0.1)
            case Score():
                self.scored.append(request)
                worth = self.gain if request.adapter else 0.0
                return Scores(
                    scores=tuple(
                        -1.0 + worth + place / 1000 for place in range(len(request.samples))
                    )
                )
            case Generate():
                self.answered.append(request)
                said = (ProbeToken(text="a", logprob=-0.1, lead=0.5),)
                return Generated(
                    probes=(said,) * len(request.probes), prompts=(said,) * len(request.prompts)
                )


@dataclass
class FakeTopicReader:
    """What is on the topics that the trainer listens to, read as the real reader does."""

    bus: MemoryBus
    read: dict[str, int] = field(default_factory=dict)

    async def read_new(self) -> list[Record]:
        records = []
        for topic in (
            DATASET_WITHDRAWALS,
            TRAINING_CHECKPOINTS,
            TRAINING_ROLLBACKS,
            MODELS_VERSIONS,
        ):
            log = self.bus.topics.get(topic, [])
            records += log[self.read.get(topic, 0) :]
            self.read[topic] = len(log)
        return records


@dataclass
class World:
    """All that outlives a trainer, and a way to start one."""

    folder: Path
    bus: MemoryBus = field(default_factory=MemoryBus)
    store: MemoryStore = field(default_factory=MemoryStore)
    child: QuickChild = field(default_factory=lambda: QuickChild(0.5))
    tracing: Tracing = NOOP_TRACING

    def trainer(self, model: ModelFile | None = None) -> Trainer:
        model = model or ModelFile(
            model="m", base=DeclaredBase(training="base", serving="base/model.gguf")
        )
        clock = SystemClock()
        return Trainer(
            models=Models({"m": model}, self.folder),
            bases={"m": LocalBase(self.folder, "base", DIGEST)},
            store=self.store,
            runs=RunFolders(self.folder),
            child=self.child,
            view_reader=FakeTopicReader(self.bus),
            producer=self.bus,
            clock=clock,
            metrics=Metrics("trainer"),
            health=Health(clock),
            log=structlog.stdlib.get_logger(),
            tracing=self.tracing,
        )

    async def publish(self, event: Event) -> None:
        value, headers = encode(event, "registry")
        await self.bus.send(MODELS_VERSIONS, b"m", value, headers)

    async def withdraw(self, *feedback_ids: str) -> None:
        """What the dataset service says of a withdrawal."""
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

    async def answer(self, evaluation: int, answer: str, champion: str) -> None:
        """The registry's answer to the checkpoint of an evaluation, once it is there."""
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
        """The model card of the one adapter that is in the store."""
        (key,) = [key for key in self.store.list_keys("adapters") if key.endswith("/README.md")]
        return self.store.get(key).decode()

    def events(self, topic: str) -> list[Event]:
        return [
            decode(record.value, record.headers, *VIEW_EVENTS).event
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


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World(tmp_path)
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


def record_of(batch: BatchReady) -> Record:
    value, headers = encode(batch, "dataset")
    return Record("training.batches", 0, batch.number, b"m", value, tuple(headers))


def a_batch(world: World, model: str = "m") -> BatchReady:
    return write_batch(world.store, model, 0, tickets(0, 10), tickets(500, 20))


async def is_owner() -> bool:
    return True


async def is_not_owner() -> bool:
    return False


async def test_a_better_candidate_is_a_checkpoint_and_its_run_ends_with_the_answer(
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
        {"messages": [turn.model_dump() for turn in one.messages], "answer": one.answer}
        for one in tickets(900, 12)
    ]
    (world.folder / "golden.jsonl").write_text("\n".join(map(json.dumps, golden)))
    return ModelFile(
        model="m",
        base=DeclaredBase(training="base", serving="base/model.gguf"),
        gate=GateSettings(golden="golden.jsonl"),
    )


async def test_what_a_run_asks_of_the_base_on_golden_is_known_before_the_first_batch(
    world: World,
) -> None:
    """The base is the champion: of what is frozen a run asks it nothing. Eight of golden are
    answered, and as many of held-out.
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


async def test_where_a_version_is_served_the_base_is_asked_nothing_of_golden(world: World) -> None:
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


async def test_asked_again_it_evaluates_the_same_candidate_against_the_new_champion(
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
async def test_no_better_candidate_is_rolled_back_without_waiting(
    world: World, gain: float, outcome: str
) -> None:
    world.child.gain = gain
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    assert [event.outcome for event in world.rollbacks] == [outcome]
    assert world.rollbacks[0].verdict is not None
    assert "Decision: " + world.rollbacks[0].verdict.decision in world.card
    assert not world.checkpoints


async def test_answers_are_measured_and_the_reward_of_what_was_learned_is_on_record(
    world: World,
) -> None:
    """The child answers "a" to every prompt, which is no ticket's JSON; the examples of a ticket's
    batch have a reward of 1.
    """
    world.child.gain = 0.0
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    (outcome,) = world.rollbacks
    assert outcome.verdict is not None
    assert outcome.metrics is not None
    found = {measure.name: measure for measure in outcome.verdict.measures}
    assert {measure.set for measure in outcome.verdict.measures} == {"held_out"}
    assert (found["perplexity"].examples, found["exact_match"].examples) == (20, 8)
    assert (found["exact_match"].candidate, found["json_validity"].candidate) == (0, 0)
    assert outcome.metrics.mean_reward == 1


async def test_a_candidate_that_looks_like_reward_hacking_is_not_promoted(world: World) -> None:
    """Rewards -0.5, 0, 0.5 and now 1 rise by 1.5; held-out changes of three times -0.2 and now +0.5
    are -0.025 on average.
    """
    for place, reward in enumerate((-0.5, 0.0, 0.5)):
        event = rolled_back_run(f"run {place}", reward, -0.2, NOW + timedelta(hours=place))
        await world.bus.send(TRAINING_ROLLBACKS, b"m", *encode(event, "trainer"))
    trainer = world.trainer()
    await trainer.handle(record_of(a_batch(world)), is_owner)
    outcome = world.rollbacks[-1]
    assert not world.checkpoints
    assert outcome.outcome == "inconclusive"
    assert outcome.reason.startswith(
        "reward hacking suspected: over 4 candidates the reward of what they learn rose by 1.500"
    )
    assert (
        trainer._metrics.registry.get_sample_value(
            "ratchet_training_reward_hacking", {"model": "m"}
        )
        == 1
    )


async def test_a_run_that_was_cut_off_goes_on_where_it_was(world: World) -> None:
    """The trainer dies at its first evaluation, and once more while it waits for the answer: it
    trains once and says one thing.
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


async def test_a_run_that_has_ended_is_not_run_again(world: World) -> None:
    world.child.gain = -0.5
    record = record_of(a_batch(world))
    await world.trainer().handle(record, is_owner)
    await world.trainer().handle(record, is_owner)
    assert (len(world.rollbacks), len(world.child.trained)) == (1, 1)


async def test_nothing_is_published_for_a_batch_that_another_trainer_has(world: World) -> None:
    with pytest.raises(PartitionLost):
        await world.trainer().handle(record_of(a_batch(world)), is_not_owner)
    assert not world.checkpoints
    assert not world.rollbacks


async def test_a_child_that_dies_once_is_replaced_and_one_that_dies_twice_fails_the_run(
    world: World,
) -> None:
    world.child.gain = 0.0
    world.child.errors_to_raise = [ChildProcessEnded("killed")]
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    world.child.errors_to_raise = [
        ChildProcessEnded("killed", out_of_memory=True),
        ChildProcessEnded("killed", out_of_memory=True),
    ]
    await world.trainer().handle(
        record_of(write_batch(world.store, "m", 1, tickets(0, 10), [])), is_owner
    )
    assert [event.outcome for event in world.rollbacks] == ["inconclusive", "failed"]
    assert "batch_size 5 (now 10" in world.rollbacks[1].advice


async def test_what_cannot_be_trained_fails_with_advice(world: World) -> None:
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


async def test_what_was_withdrawn_is_not_trained_on_and_the_checkpoint_says_how_far_that_was_heard(
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


async def test_an_outcome_says_what_it_came_from(world: World) -> None:
    """Lineage, parent and base: of a checkpoint from the base, of a rollback from its adapter, and
    of a run that failed.
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


async def test_a_champion_of_another_base_is_refused_before_anything_is_trained(
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


async def test_a_run_that_was_cut_off_keeps_the_set_that_it_began_with(world: World) -> None:
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
        "so that the registry knows what it was made with"
    )


async def test_a_batch_of_which_all_was_withdrawn_fails_with_a_plain_reason(world: World) -> None:
    await world.withdraw(*(f"0-training-{place}" for place in range(10)))
    await world.trainer().handle(record_of(a_batch(world)), is_owner)
    (failed,) = world.rollbacks
    assert (failed.outcome, failed.reason) == (
        "failed",
        "all that the batch had to train on was withdrawn",
    )
    assert not world.child.trained


async def test_a_batch_of_an_undeclared_model_is_a_dead_letter(world: World) -> None:
    with pytest.raises(UnknownModel):
        await world.trainer().handle(record_of(a_batch(world, "stranger")), is_owner)


async def test_a_registry_that_cannot_be_understood_stops_the_trainer(world: World) -> None:
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


async def in_training(world: World) -> None:
    async with asyncio.timeout(10):
        while world.child.interrupted is None:
            await asyncio.sleep(0.01)


async def test_a_run_that_is_stopped_goes_on_at_a_worker_with_another_disk_and_leaves_nothing_behind(
    world: World, tmp_path: Path
) -> None:
    world.child.stops_at, world.child.gain = 3, -0.5
    record, first = record_of(a_batch(world)), world.trainer()
    handling = asyncio.create_task(first.handle(record, is_owner))
    await in_training(world)
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


async def test_a_run_goes_on_here_when_a_rebalance_leaves_it_here(world: World) -> None:
    world.child.stops_at, world.child.gain = 3, -0.5
    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(record_of(a_batch(world)), is_owner))
    await in_training(world)
    await trainer.pause(5)
    world.child.stops_at = 0
    await trainer.settled()
    await handling
    assert world.child.checkpoints_seen == [["checkpoint-3"]]
    assert [event.outcome for event in world.rollbacks] == ["rejected"]


async def test_a_run_is_forgone_when_a_rebalance_gives_it_away(world: World) -> None:
    world.child.stops_at = 3
    here = True

    async def owned() -> bool:
        return here

    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(record_of(a_batch(world)), owned))
    await in_training(world)
    await trainer.pause(5)
    here = False
    await trainer.settled()
    with pytest.raises(PartitionLost):
        await handling
    assert not world.rollbacks
    assert not world.checkpoints


async def test_a_pause_waits_for_a_checkpoint_no_longer_than_its_bound_and_a_late_one_holds_up_nothing(
    world: World,
) -> None:
    """The child stops only after the rebalance is over, and the run is still here."""

    class Slow(QuickChild):
        async def interrupt(self) -> bool:
            return bool(await asyncio.get_running_loop().create_future())

    world.child = Slow(-0.5)
    world.child.stops_at = 3
    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(record_of(a_batch(world)), is_owner))
    await in_training(world)
    async with asyncio.timeout(5):
        await trainer.pause(0.1)
    await trainer.settled()
    world.child.stops_at = 0
    assert world.child.interrupted is not None
    world.child.interrupted.set_result(None)
    async with asyncio.timeout(5):
        await handling
    assert world.child.checkpoints_seen == [["checkpoint-3"]]


async def test_an_outcome_that_another_trainer_has_published_meanwhile_is_not_said_again(
    world: World, tmp_path: Path
) -> None:
    """A worker sleeps just before it publishes, still believes that the batch is its own when it
    wakes up, and has decided otherwise.
    """
    record = record_of(a_batch(world))
    asleep = asyncio.Event()

    async def sleeps() -> bool:
        await asleep.wait()
        return True

    world.child.gain = -0.5
    sleeping = asyncio.create_task(world.trainer().handle(record, sleeps))
    while not list(world.folder.glob("runs/*/outcome-1.json")):
        await asyncio.sleep(0.01)
    elsewhere = World(tmp_path / "elsewhere", world.bus, world.store, QuickChild(0.5))
    handling = asyncio.create_task(elsewhere.trainer().handle(record, is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    asleep.set()
    await sleeping
    assert (len(world.checkpoints), len(world.rollbacks)) == (1, 0)


async def test_what_a_full_disk_does_not_take_is_told_and_the_next_batch_is_trained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan cannot be kept, and neither can the outcome that says so; then there is room again."""
    world.child.gain = -0.5

    def full(*_: object) -> None:
        raise StorageUnavailable("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shared.storage.object_store.FsspecStore.put", full)
        await world.trainer().handle(record_of(a_batch(world)), is_owner)
    await world.trainer().handle(
        record_of(write_batch(world.store, "m", 1, tickets(0, 10), tickets(500, 20))), is_owner
    )
    assert [event.outcome for event in world.rollbacks] == ["failed", "rejected"]
    assert "no space left" in world.rollbacks[0].reason
    assert "RATCHET_WORK" in world.rollbacks[0].advice


async def test_a_batch_waits_for_its_lanes_window_unless_its_run_has_begun(world: World) -> None:
    """The window is the hour that begins in an hour, so it is closed now."""
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
    assert trainer.window_opens_at(record) == soon.replace(minute=0, second=0, microsecond=0)
    assert world.trainer().window_opens_at(record) is None
    assert trainer.window_opens_at(record_of(a_batch(world, "stranger"))) is None
    assert trainer.window_opens_at(replace(record, value=b"{}")) is None
    world.child.dies_at = Train
    with pytest.raises(RuntimeError, match="power"):
        await trainer.handle(record, is_owner)
    assert trainer.window_opens_at(record) is None, "what has begun is finished"


async def test_the_time_from_a_full_batch_to_its_first_verdict_is_measured_once(
    world: World,
) -> None:
    """Announced a minute ago; asked again, the trainer gives a second verdict, which is no longer
    the batch's wait.
    """
    trainer = world.trainer()
    record = replace(record_of(a_batch(world)), timestamp=datetime.now(UTC) - timedelta(seconds=60))
    handling = asyncio.create_task(trainer.handle(record, is_owner))
    await world.answer(1, "reevaluate", "v0")
    await world.answer(2, "promoted", "v1")
    await handling
    read, labels = trainer._metrics.registry.get_sample_value, {"model": "m", "lane": "adaptive"}
    assert read("ratchet_training_verdict_seconds_count", labels) == 1
    waited = read("ratchet_training_verdict_seconds_sum", labels)
    assert waited is not None
    assert 60 < waited < 90
