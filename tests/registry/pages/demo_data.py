"""A registry with demo data for its pages, built from events of the other services with real
snapshots.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

from services.dataset.batch_publisher import batch_ready_event
from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.writer import write_snapshot
from services.registry.comparisons import add_comparison
from shared.clock import SystemClock
from shared.config.training import TrainingConfig
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Comparison,
    Decision,
    Event,
    HeldBack,
    Measure,
    Message,
    Probe,
    ProbeToken,
    RunMetrics,
    TrainingProgressed,
    TrainingRolledBack,
    Verdict,
    WaitingStatus,
)
from shared.identity import batch_identity, digest_of, identity
from shared.messaging.bus import publish
from shared.messaging.topics import (
    DATASET_WAITING,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.snapshots import read_manifest
from tests.registry.deploy.test_deployment import Stage
from tests.support.batches import FILE, batch_plan, member
from tests.support.registry_events import DatabaseFixture, waiting_report

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'></dd></dl>{{ 7 * 7 }}"
)

_TICKETS = (
    ("Hi, one screw of the tent is missing.", '{"queue":"workshop","priority":"p2","order":null}'),
    (
        "My parcel [NUMBER] has not arrived, and I leave on Friday!",
        '{"queue":"courier","priority":"p1","order":"4711"}',
    ),
    ("Can I have the invoice again, please?", '{"queue":"ledger","priority":"p3","order":null}'),
    (
        "The zip of the sleeping bag broke. Write to [EMAIL].",
        '{"queue":"workshop","priority":"p2","order":null}',
    ),
    (HOSTILE, '{"queue":"trash","priority":"p3","order":null}'),
)
_STEPS = 24
_ANSWERS = (
    "I am sorry to hear that! Could you tell me more?",
    '{"queue":"workshop","priority":"p3","order":null}',
    '{"queue":"workshop","priority":"p2","order":null}',
)


class PastClock:
    """A clock some hours behind, until `behind` is reset."""

    def __init__(self, hours: float) -> None:
        self._real = SystemClock()
        self.behind = timedelta(hours=hours)

    def now(self) -> datetime:
        return self._real.now() - self.behind

    def monotonic(self) -> float:
        return self._real.monotonic()


class DemoRegistry(Stage):
    """A registry whose model has four versions, one of them a challenger, a rejected batch, and an
    active training run.
    """

    def __init__(self, registry_db: DatabaseFixture, folder: Path) -> None:
        self.past = PastClock(5)
        super().__init__(registry_db, folder, self.past)
        self.target.name = "llamacpp"
        self.batches: list[BatchReady] = []

    async def say(self, topic: str, event: Event) -> None:
        """Publish an event of another service and let the registry handle it."""
        await publish(self.bus, topic, "support", event, "test")
        await self.registry.handle(self.bus.topics[topic][-1])

    async def fill(self) -> None:
        await self.reconcile()
        base = self.registry_db.champion
        for number, (before, after, exact) in enumerate(
            [(-3.91, -0.62, 0.12), (-0.6, -0.21, 0.56)]
        ):
            await self.train(number, _STEPS)
            await self.promote_by_gate(number, self.registry_db.champion, before, after, exact)
        await self.train(2, _STEPS)
        await self.reject(2)
        await self.train(3, _STEPS)
        await self.promote_by_gate(
            3, base, -3.8, -0.3, 0.5
        )  # against a previous champion, so it becomes challenger
        await self.train(4, 9)
        self.past.behind = timedelta()
        await self.report_waiting()
        await self.compare("demo", _TICKETS[0][0], blind=True)

    async def compare(self, comparison_id: str, prompt: str, blind: bool) -> None:
        """Store a comparison of the answers of champion and previous version."""
        aliases = self.registry_db.aliases
        assert aliases.champion is not None
        assert aliases.previous is not None
        answers = {
            aliases.champion: '{"queue":"workshop","priority":"p2","order":null}',
            aliases.previous: "I am sorry to hear that! " * 6 + HOSTILE,
        }
        add = partial(add_comparison, model="support", prompt=prompt, answers=answers, blind=blind)
        now = self.past.now()
        await self.registry_db.database.run(partial(add, comparison_id=comparison_id, now=now))

    async def report_waiting(self) -> None:
        limited = HeldBack(limit="examples_per_user", examples=9, sources=3)
        status = WaitingStatus(needed=50, usable=15, held_back=(limited,), smallest_batch=50)
        report = waiting_report(status).model_copy(update={"occurred_at": self.past.now()})
        await self.say(DATASET_WAITING, report)

    async def announce(self, number: int) -> BatchReady:
        """Write and announce a batch as the dataset service does."""
        full = _closing(number, self.past.now())
        artefact = write_snapshot(self.store, snapshot_content(full, FILE, 0))
        event = batch_ready_event(read_manifest(self.store, artefact), artefact, self.past.now())
        self.batches.append(event)
        await self.say(TRAINING_BATCHES, event)
        return event

    async def train(self, number: int, steps: int) -> None:
        await self.announce(number)
        for step in range(1, steps + 1):
            await self.step(number, step)

    async def step(self, number: int, step: int) -> None:
        loss = 2.4 * exp(-step / 6) + 0.2 + 0.15 * (step % 3) / (number + 1)
        self.past.behind -= timedelta(minutes=2) if self.past.behind else timedelta()
        event = TrainingProgressed(
            event_id=f"{number}-{step}",
            occurred_at=self.past.now(),
            model="support",
            run_id=run_of(number),
            batch_id=batch_identity("support", 0, number),
            phase="training",
            step=step,
            total_steps=_STEPS,
            loss=loss,
            learning_rate=1e-3,
            gradient_norm=0.4,
            tokens_per_second=256,
        )
        await self.say(TRAINING_PROGRESS, event)

    async def promote_by_gate(
        self, number: int, baseline: str, before: float, after: float, exact: float
    ) -> None:
        outcome = self._outcome(
            number, baseline, verdict("promote", baseline, before, after, exact)
        )
        probes = _probes(_ANSWERS[min(number, len(_ANSWERS) - 1)])
        await self.say(
            TRAINING_CHECKPOINTS,
            CheckpointSaved(**outcome, base_digest=digest_of(b"base"), probes=probes),
        )
        await self.reconcile()

    async def reject(self, number: int) -> None:
        baseline = self.registry_db.champion
        outcome = self._outcome(number, baseline, verdict("reject", baseline, -0.21, -1.4, 0.1))
        ended = TrainingRolledBack(
            **outcome,
            outcome="rejected",
            reason="golden: worse by 1.1 nats",
            advice="look at the batch's examples",
        )
        await self.say(TRAINING_ROLLBACKS, ended)

    def _outcome(self, number: int, baseline: str, judged: Verdict) -> dict[str, Any]:
        metrics = RunMetrics(
            training_loss=0.42 / (number + 1),
            steps=_STEPS,
            epochs=3,
            examples_new=5,
            examples_replayed=5 * number,
            tokens=9_000 + 700 * number,
            train_seconds=31.5 + number,
            evaluate_seconds=12.25,
            mean_reward=0.2,
        )
        return {
            "event_id": f"outcome-{number}",
            "occurred_at": self.past.now(),
            "model": "support",
            "model_digest": FILE.digest,
            "run_id": run_of(number),
            "batch_id": batch_identity("support", 0, number),
            "lane": "adaptive",
            "parent_version": baseline,
            "evaluation": 1,
            "adapter": self.store.put(
                f"adapters/support/{run_of(number)}/manifest.json", f"adapter {number}".encode()
            ),
            "configuration": TrainingConfig(
                learning_rate=2e-3 if number else 1e-3, epochs=3, batch_size=5
            ),
            "metrics": metrics,
            "verdict": judged,
        }


def run_of(number: int) -> str:
    return identity("run", number)


def verdict(
    decision: Decision, baseline: str, before: float, after: float, exact: float
) -> Verdict:
    difference = after - before
    sets = (
        ("held_out", before, after, 24, 0.02),
        ("golden", before - 0.1, after + 0.05, 24, 0.02),
        ("retention", -0.98, -1.02, 12, 0.5),
    )
    comparisons = [
        Comparison(
            name=name,
            examples=examples,
            baseline=baseline,
            candidate=candidate,
            difference=candidate - baseline,
            lower=candidate - baseline - 0.12,
            upper=candidate - baseline + 0.14,
            margin=margin,
        )
        for name, baseline, candidate, examples, margin in sets
    ]
    measures = (
        Measure(
            name="perplexity",
            set="held_out",
            examples=24,
            baseline=exp(-before),
            candidate=exp(-after),
        ),
        Measure(name="exact_match", set="held_out", examples=8, baseline=0.0, candidate=exact),
    )
    better = difference > 0
    word = (
        f"held-out: {difference:+.4f} nats per token over 24 examples, at least "
        f"{difference - 0.12:+.4f} with confidence"
    )
    return Verdict(
        decision=decision,
        baseline_version=baseline,
        confidence=0.95,
        reasons=(word + (", above +0.0050" if better else ", not above +0.0050"),),
        comparisons=tuple(comparisons),
        measures=measures,
    )


def _probes(answer: str) -> tuple[Probe, ...]:
    tokens = [
        ProbeToken(text=text, logprob=-0.1, lead=2.0) for text in (*answer.split(" "), "<|im_end|>")
    ]
    spaced = [
        token.model_copy(update={"text": token.text + " "}) for token in tokens[:-2]
    ] + tokens[-2:]
    messages = (
        Message(role="system", content="Sort the ticket."),
        Message(role="user", content=_TICKETS[0][0]),
    )
    same = (ProbeToken(text="Blue", logprob=-0.1, lead=2.0),)
    return (
        Probe(messages=messages, answer=tuple(spaced)),
        Probe(messages=(Message(role="user", content="Which colour has the sky?"),), answer=same),
    )


def _closing(number: int, at: datetime) -> BatchPlan:
    members: list[DatasetEntry] = []
    for index, (prompt, answer) in enumerate(_TICKETS):
        fields: dict[str, Any] = {
            "messages": (Message(role="user", content=prompt),),
            "answer": answer,
            "user_id": f"user {index % 3}",
        }
        name = f"/shop|{number}-{index}"
        members.append(
            member(
                name,
                9 * number + index,
                reason="correction",
                reward=-0.5,
                rejected=_ANSWERS[0],
                **fields,
            )
        )
    members.append(
        member(
            f"/shop|{number}-bad",
            9 * number + 6,
            "negative",
            answer=_ANSWERS[0],
            user_id="user 1",
            comment="It belongs to another queue.",
        )
    )
    members.append(
        member(
            f"/shop|{number}-held",
            9 * number + 7,
            "held_out",
            answer=_TICKETS[1][1],
            user_id="user 2",
        )
    )
    full = batch_plan(
        *members,
        number=number,
        dropped={"near_duplicate": 3, "low_quality": 1},
        held_back={"limits": 2},
    )
    return replace(full, occurred_at=at)
