"""The shell, with a child that learns at once, a bus in memory, and a registry played by the test."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import structlog

from services.trainer.app import HEARD_BACK, Trainer
from services.trainer.bases import Base
from services.trainer.child_process import ChildProcess, Heard, ignore
from services.trainer.failures import ChildEnded, RunFailed
from services.trainer.protocol import Answer, Answered, Load, Loaded, Request, Score, Scored, Train, Trained
from services.trainer.runs import Runs
from shared.bus import MemoryBus, Record
from shared.clock import SystemClock
from shared.codec import decode, encode
from shared.errors import Misconfigured, UnknownModel
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Event,
    ExamplesWithdrawn,
    Position,
    ProbeToken,
    TrainingRolledBack,
    Value,
    VersionPromoted,
    VersionRegistered,
    WithdrawnBatch,
)
from shared.health import Health
from shared.identity import identity
from shared.metrics import Metrics
from shared.model_file import Base as DeclaredBase
from shared.model_file import ModelFile, Models
from shared.storage import MemoryStore
from shared.topics import DATASET_WITHDRAWALS, MODELS_VERSIONS, TRAINING_CHECKPOINTS, TRAINING_PROGRESS, TRAINING_ROLLBACKS
from tests.trainer.histories import ended
from tests.trainer.tickets import DIGEST, NOW, tickets, write_batch

R = TypeVar("R", bound=Value)


class QuickChild(ChildProcess):
    """Learns at once: what wears an adapter scores `gain` more than the bare base. Raises what `trouble` holds, first thing first."""

    def __init__(self, gain: float) -> None:
        super().__init__(0, structlog.stdlib.get_logger())
        self.gain = gain
        self.trouble: list[Exception] = []
        self.dies_at: type[Value] | None = None
        self.trained: list[Train] = []
        self.scored: list[Score] = []

    async def ask(self, request: Request, expected: type[R], heard: Heard = ignore) -> R:
        if self.trouble and not isinstance(request, Load):
            raise self.trouble.pop(0)
        if self.dies_at is not None and isinstance(request, self.dies_at):
            raise RuntimeError("power")
        reply = self._reply(request)
        assert isinstance(reply, expected)
        return reply

    def _reply(self, request: Request) -> Value:
        match request:
            case Load():
                return Loaded()
            case Train():
                self.trained.append(request)
                request.out.mkdir(parents=True)
                (request.out / "adapter_model.safetensors").write_bytes(b"weights")
                return Trained(training_loss=0.1, steps=1, tokens=1, seconds=0.1)
            case Score():
                self.scored.append(request)
                worth = self.gain if request.adapter else 0.0
                return Scored(scores=tuple(-1.0 + worth + place / 1000 for place in range(len(request.samples))))
            case Answer():
                return Answered(answers=((ProbeToken(text="a", logprob=-0.1, lead=0.5),),) * len(request.prompts))


@dataclass
class Others:
    """What is on the topics that the trainer listens to, read as the real reader does."""

    bus: MemoryBus
    read: dict[str, int] = field(default_factory=dict)

    async def newest(self) -> list[Record]:
        records = []
        for topic in (DATASET_WITHDRAWALS, TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS, MODELS_VERSIONS):
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

    def trainer(self) -> Trainer:
        model = ModelFile(model="m", base=DeclaredBase(training="base", serving="base/model.gguf"))
        clock = SystemClock()
        return Trainer(
            models=Models({"m": model}, self.folder),
            bases={"m": Base(self.folder, "base", DIGEST)},
            store=self.store,
            runs=Runs(self.folder),
            child=self.child,
            others=Others(self.bus),
            producer=self.bus,
            clock=clock,
            metrics=Metrics("trainer"),
            health=Health(clock),
            log=structlog.stdlib.get_logger(),
        )

    async def say(self, event: Event) -> None:
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
        while not (saved := [event for event in self.checkpoints if event.evaluation == evaluation]):
            await asyncio.sleep(0.01)
        await self.say(
            VersionRegistered.model_validate(
                {"event_id": f"a{evaluation}", "occurred_at": NOW, "model": "m", "version": "v1", "number": 1, "champion": champion}
                | {"run_id": saved[0].run_id, "batch_id": saved[0].batch_id, "evaluation": evaluation, "answer": answer}
            )
        )

    def events(self, topic: str) -> list[Event]:
        return [decode(record.value, record.headers, CheckpointSaved, *HEARD_BACK).event for record in self.bus.topics.get(topic, [])]

    @property
    def checkpoints(self) -> list[CheckpointSaved]:
        return [event for event in self.events(TRAINING_CHECKPOINTS) if isinstance(event, CheckpointSaved)]

    @property
    def rollbacks(self) -> list[TrainingRolledBack]:
        return [event for event in self.events(TRAINING_ROLLBACKS) if isinstance(event, TrainingRolledBack)]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    await world.say(VersionRegistered(event_id="0", occurred_at=NOW, model="m", version="v0", number=0, answer="promoted", champion="v0"))
    return world


def announced(batch: BatchReady) -> Record:
    value, headers = encode(batch, "dataset")
    return Record("training.batches", 0, batch.number, b"m", value, tuple(headers))


def a_batch(world: World, model: str = "m") -> BatchReady:
    return write_batch(world.store, model, 0, tickets(0, 10), tickets(500, 20))


def mine() -> bool:
    return True


async def test_a_better_candidate_is_a_checkpoint_and_its_run_ends_with_the_answer(world: World) -> None:
    batch = a_batch(world)
    handling = asyncio.create_task(world.trainer().handle(announced(batch), mine))
    await asyncio.sleep(0.5)
    assert len(world.checkpoints) == 1
    assert not handling.done()
    await world.answer(1, "promoted", "v1")
    await handling
    assert world.bus.topics[TRAINING_PROGRESS]
    assert world.checkpoints[0].event_id == identity("CheckpointSaved", identity("run", batch.batch_id), 1)


async def test_asked_again_it_evaluates_the_same_candidate_against_the_new_champion(world: World) -> None:
    handling = asyncio.create_task(world.trainer().handle(announced(a_batch(world)), mine))
    while not world.checkpoints:
        await asyncio.sleep(0.01)
    await world.say(VersionPromoted(event_id="p", occurred_at=NOW, model="m", version="v9", actor="operator", reason="by hand"))
    await world.answer(1, "reevaluate", "v9")
    await world.answer(2, "promoted", "v1")
    await handling
    first, second = world.checkpoints
    assert [first.verdict.baseline_version, second.verdict.baseline_version] == ["v0", "v9"]
    assert first.adapter == second.adapter
    assert len(world.child.scored) == 2  # base and candidate, once each
    assert len(world.child.trained) == 1


@pytest.mark.parametrize(("gain", "outcome"), [(0.0, "inconclusive"), (-0.5, "rejected")])
async def test_no_better_candidate_is_rolled_back_without_waiting(world: World, gain: float, outcome: str) -> None:
    world.child.gain = gain
    await world.trainer().handle(announced(a_batch(world)), mine)
    assert [event.outcome for event in world.rollbacks] == [outcome]
    assert world.rollbacks[0].verdict is not None
    assert not world.checkpoints


async def test_answers_are_measured_and_the_reward_of_what_was_learned_is_on_record(world: World) -> None:
    """The child answers "a" to every prompt, which is no ticket's JSON; the examples of a ticket's batch have a reward of 1."""
    world.child.gain = 0.0
    await world.trainer().handle(announced(a_batch(world)), mine)
    (outcome,) = world.rollbacks
    assert outcome.verdict is not None
    assert outcome.metrics is not None
    found = {measure.name: measure for measure in outcome.verdict.measures}
    assert {measure.set for measure in outcome.verdict.measures} == {"held_out"}
    assert (found["perplexity"].examples, found["exact_match"].examples) == (20, 8)
    assert (found["exact_match"].candidate, found["json_validity"].candidate) == (0, 0)
    assert outcome.metrics.mean_reward == 1


async def test_a_candidate_that_looks_like_reward_hacking_is_not_promoted(world: World) -> None:
    """Rewards -0.5, 0, 0.5 and now 1 rise by 1.5; held-out changes of three times -0.2 and now +0.5 are -0.025 on average."""
    for place, reward in enumerate((-0.5, 0.0, 0.5)):
        event = ended(f"run {place}", reward, -0.2, NOW + timedelta(hours=place))
        await world.bus.send(TRAINING_ROLLBACKS, b"m", *encode(event, "trainer"))
    trainer = world.trainer()
    await trainer.handle(announced(a_batch(world)), mine)
    outcome = world.rollbacks[-1]
    assert not world.checkpoints
    assert outcome.outcome == "inconclusive"
    assert outcome.reason.startswith("reward hacking suspected: over 4 candidates the reward of what they learn rose by 1.500")
    assert trainer._metrics.registry.get_sample_value("ratchet_training_reward_hacking", {"model": "m"}) == 1


async def test_a_run_that_was_cut_off_goes_on_where_it_was(world: World) -> None:
    """The trainer dies at its first evaluation, and once more while it waits for the answer: it trains once and says one thing."""
    record = announced(a_batch(world))
    world.child.dies_at = Score
    with pytest.raises(RuntimeError, match="power"):
        await world.trainer().handle(record, mine)
    world.child.dies_at = None
    handling = asyncio.create_task(world.trainer().handle(record, mine))
    while not world.checkpoints:
        await asyncio.sleep(0.01)
    handling.cancel()
    scored = len(world.child.scored)
    handling = asyncio.create_task(world.trainer().handle(record, mine))
    await world.answer(1, "promoted", "v1")
    await handling
    assert len(world.child.trained) == 1
    assert len(world.child.scored) == scored
    assert len({event.event_id for event in world.checkpoints}) == 1


async def test_a_run_that_has_ended_is_not_run_again(world: World) -> None:
    world.child.gain = -0.5
    record = announced(a_batch(world))
    await world.trainer().handle(record, mine)
    await world.trainer().handle(record, mine)
    assert (len(world.rollbacks), len(world.child.trained)) == (1, 1)


async def test_nothing_is_published_for_a_batch_that_another_trainer_has(world: World) -> None:
    await world.trainer().handle(announced(a_batch(world)), lambda: False)
    assert not world.checkpoints
    assert not world.rollbacks


async def test_a_child_that_dies_once_is_replaced_and_one_that_dies_twice_fails_the_run(world: World) -> None:
    world.child.gain = 0.0
    world.child.trouble = [ChildEnded("killed")]
    await world.trainer().handle(announced(a_batch(world)), mine)
    world.child.trouble = [ChildEnded("killed"), ChildEnded("killed")]
    await world.trainer().handle(announced(write_batch(world.store, "m", 1, tickets(0, 10), [])), mine)
    assert [event.outcome for event in world.rollbacks] == ["inconclusive", "failed"]
    assert "memory" in world.rollbacks[1].advice


async def test_what_cannot_be_trained_fails_with_advice(world: World) -> None:
    world.child.trouble = [RunFailed("the loss is nan", "lower the rate")]
    await world.trainer().handle(announced(a_batch(world)), mine)
    altered = write_batch(world.store, "m", 1, tickets(0, 10), [])
    world.store.objects["batches/m/1/training.jsonl"] = b"{}"
    await world.trainer().handle(announced(altered), mine)
    empty = write_batch(world.store, "m", 2, [], [])
    await world.trainer().handle(announced(empty), mine)
    assert [event.outcome for event in world.rollbacks] == ["failed"] * 3
    assert [event.advice for event in world.rollbacks if not event.advice] == []
    assert "altered" in world.rollbacks[1].reason


async def test_what_was_withdrawn_is_not_trained_on_and_the_checkpoint_says_how_far_that_was_heard(world: World) -> None:
    await world.withdraw("0-training-0", "0-training-1", "0-held_out-0")
    await world.withdraw("another")
    handling = asyncio.create_task(world.trainer().handle(announced(a_batch(world)), mine))
    await world.answer(1, "promoted", "v1")
    await handling
    assert list(world.child.trained[0].examples) == tickets(2, 8)
    assert tickets(500, 1)[0] not in world.child.scored[0].samples
    assert world.checkpoints[0].withdrawn_through == Position(topic=DATASET_WITHDRAWALS, partition=0, offset=1)


async def test_a_run_that_was_cut_off_keeps_the_set_that_it_began_with(world: World) -> None:
    record = announced(a_batch(world))
    world.child.dies_at = Train
    with pytest.raises(RuntimeError, match="power"):
        await world.trainer().handle(record, mine)
    world.child.dies_at = None
    await world.withdraw("0-training-0")
    handling = asyncio.create_task(world.trainer().handle(record, mine))
    await world.answer(1, "promoted", "v1")
    await handling
    assert list(world.child.trained[0].examples) == tickets(0, 10)
    assert world.checkpoints[0].withdrawn_through is None, "so that the registry knows what it was made with"


async def test_a_batch_of_which_all_was_withdrawn_fails_with_a_plain_reason(world: World) -> None:
    await world.withdraw(*(f"0-training-{place}" for place in range(10)))
    await world.trainer().handle(announced(a_batch(world)), mine)
    (failed,) = world.rollbacks
    assert (failed.outcome, failed.reason) == ("failed", "all that the batch had to train on was withdrawn")
    assert not world.child.trained


async def test_a_batch_of_an_undeclared_model_is_a_dead_letter(world: World) -> None:
    with pytest.raises(UnknownModel):
        await world.trainer().handle(announced(a_batch(world, "stranger")), mine)


async def test_a_registry_that_cannot_be_understood_stops_the_trainer(world: World) -> None:
    await world.bus.send(MODELS_VERSIONS, b"m", b"{}", [("ce_type", b"ratchet.Novelty.v1"), ("ce_specversion", b"1.0")])
    value, headers = encode(
        VersionPromoted(event_id="p", occurred_at=NOW, model="m", version="v9", actor="operator", reason="by hand"), "registry"
    )
    await world.bus.send(MODELS_VERSIONS, b"m", value.replace(b"version", b"wersion"), headers)
    with pytest.raises(Misconfigured, match="version"):
        await world.trainer().handle(announced(a_batch(world)), mine)
