"""Withdrawals in the registry, and the versions affected by them."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.registry.app import TOPICS
from services.registry.handlers import checkpoint_saved, training_rolled_back
from services.registry.versions.moves import roll_back
from services.registry.versions.withdrawals import record_withdrawal
from shared.errors import UnknownModel
from shared.events import ExamplesWithdrawn, Position, WithdrawnBatch
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import DATASET_WITHDRAWALS
from tests.registry.deploy.test_deployment import Stage
from tests.support.credentials import OPERATOR
from tests.support.registry_events import CONTEXT, NOW, DatabaseFixture, checkpoint, rejection

PLACE = Position(topic="feedback.received", partition=0, offset=0)


def withdrawn(
    event_id: str, *batches: tuple[str, Sequence[str]], **fields: Any
) -> ExamplesWithdrawn:
    defaults: dict[str, Any] = {
        "event_id": event_id,
        "occurred_at": NOW,
        "model": "support",
        "shard": 0,
        "user": "digest of ann",
    }
    defaults |= {"forgotten": "f", "received": PLACE, "waiting": 0}
    members = tuple(
        WithdrawnBatch(batch_id=batch, number=0, feedback_ids=tuple(names))
        for batch, names in batches
    )
    return ExamplesWithdrawn.model_validate(defaults | {"batches": members} | fields)


class Registry(Stage):
    """A registry that receives one run a minute and is queried over HTTP."""

    minutes = 0

    def hear(self, event: ExamplesWithdrawn, offset: int = 0) -> None:
        self.registry_db.run(partial(record_withdrawal, event=event, offset=offset, now=NOW))

    def promoted(self, run: str, withdrawn_through: int | None = None) -> str:
        """Return the version of a run that left out withdrawals up to an offset."""
        self.minutes += 1
        saved = checkpoint(run, self.registry_db.champion).model_copy(
            update={
                "occurred_at": NOW + timedelta(minutes=self.minutes),
                "withdrawn_through": None
                if withdrawn_through is None
                else Position(topic=DATASET_WITHDRAWALS, partition=0, offset=withdrawn_through),
            }
        )
        self.registry_db.run(lambda session: checkpoint_saved(session, saved, CONTEXT))
        return self.registry_db.champion

    def rejected(self, run: str, quarantined: bool | None = None) -> None:
        self.minutes += 1
        event = rejection(run, self.registry_db.champion)
        assert event.verdict is not None
        judged = event.verdict.model_copy(update={"quarantined": quarantined})
        event = event.model_copy(
            update={"occurred_at": NOW + timedelta(minutes=self.minutes), "verdict": judged}
        )
        self.registry_db.run(lambda session: training_rolled_back(session, event, CONTEXT))

    async def get(self, path: str) -> Any:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://registry", headers=OPERATOR
        ) as client:
            answer = await client.get(path)
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    async def counts(self) -> dict[str, int]:
        """Count withdrawn examples by version, oldest first, in lists and single responses."""
        items = (await self.get("/api/models/support/versions"))["items"]
        for item in items:
            assert await self.get(f"/api/models/support/versions/{item['version']}") == item
        return {item["version"]: item["withdrawn_examples"] for item in reversed(items)}


@pytest.fixture
def registry(registry_db: DatabaseFixture, tmp_path: Path) -> Registry:
    return Registry(registry_db, tmp_path)


async def test_version_counts_its_withdrawn_examples(
    registry: Registry,
) -> None:
    base = registry.registry_db.champion
    first, second = registry.promoted("r1"), registry.promoted("r2")
    registry.hear(withdrawn("x", ("batch of r1", ["e1", "e2"]), ("batch of r2", ["e3"])))
    after = registry.promoted("r3", withdrawn_through=0)
    assert await registry.counts() == {base: 0, first: 2, second: 3, after: 3}, (
        "a child has what its parent learned"
    )
    page = await registry.get("/models/support")
    assert page.count("withdrawn examples</span>") == 3


async def test_version_made_after_rollback_is_unaffected(registry: Registry) -> None:
    base = registry.registry_db.champion
    first = registry.promoted("r1")
    registry.hear(withdrawn("x", ("batch of r1", ["e1"])))
    registry.registry_db.run(
        lambda session: roll_back(session, "support", base, "withdrawn", "operator", NOW)
    )
    second = registry.promoted("r2", withdrawn_through=0)
    assert await registry.counts() == {base: 0, first: 1, second: 0}


async def test_batch_without_quarantine_counts_for_later_versions(registry: Registry) -> None:
    """A batch that was rejected for forgetting is replayed by later runs."""
    base = registry.registry_db.champion
    registry.rejected("r0", quarantined=True)
    registry.rejected("r1", quarantined=False)
    registry.rejected("r2")
    version = registry.promoted("r3")
    registry.hear(withdrawn("x", *((f"batch of r{run}", [f"e{run}"]) for run in range(3))))
    assert await registry.counts() == {base: 0, version: 1}


async def test_version_of_run_started_before_withdrawal_counts(
    registry: Registry,
) -> None:
    base = registry.registry_db.champion
    registry.hear(withdrawn("x", ("batch of r1", ["e1"])), offset=7)
    late = registry.promoted("r1", withdrawn_through=6)
    assert await registry.counts() == {base: 0, late: 1}


async def test_withdrawals_list_versions_and_are_audited(
    registry: Registry,
) -> None:
    registry.rejected("r0")
    first = registry.promoted("r1")
    registry.hear(withdrawn("x", ("batch of r1", ["e1"]), waiting=2, reason="asked by letter"))
    registry.hear(withdrawn("y", waiting=0, shard=1), offset=1)
    registry.hear(
        withdrawn("z", ("batch of r0", ["e9"]), user="digest of eve", forgotten="g"), offset=2
    )
    (eve, ann) = sorted(
        (await registry.get("/api/models/support/withdrawals"))["items"],
        key=lambda item: item["forgotten"],
        reverse=True,
    )
    assert {
        key: ann[key]
        for key in ("user", "answers", "waiting", "examples", "batches", "versions", "reason")
    } == {
        "user": "digest of ann",
        "answers": 2,
        "waiting": 2,
        "examples": 1,
        "batches": 1,
        "versions": [first],
        "reason": "asked by letter",
    }
    assert (eve["examples"], eve["versions"]) == (1, []), "rejected candidates are not versions"
    history = [
        row
        for row in (await registry.get("/api/models/support/history"))["items"]
        if row["action"] == "forget"
    ]
    assert [row["evidence"]["event_id"] for row in history] == ["z", "x"], (
        "newest first; withdrawals without effect are omitted"
    )
    assert (
        history[1]["reason"] == "withdrew one user's examples: 1 in batches, 2 waiting: "
        "asked by letter"
    )
    assert (await registry.get("/models/support")).count(">data withdrawn</span>") == 2


async def test_repeated_withdrawal_adds_only_new_examples(
    registry: Registry,
) -> None:
    first = registry.promoted("r1")
    for offset in range(3):
        registry.hear(withdrawn("x", ("batch of r1", ["e1"]), waiting=1), offset)
    registry.hear(withdrawn("x", ("batch of r1", ["e1", "e2"]), waiting=1), 3)
    assert (await registry.counts())[first] == 2
    (item,) = (await registry.get("/api/models/support/withdrawals"))["items"]
    assert (item["waiting"], item["examples"], item["answers"]) == (1, 2, 1)
    history = (await registry.get("/api/models/support/history"))["items"]
    assert sum(row["action"] == "forget" for row in history) == 2


async def test_parts_of_a_withdrawal_add_up(registry: Registry) -> None:
    registry.promoted("r1")
    registry.hear(withdrawn("a0", ("batch of r1", ["e1"]), waiting=3, part=0, parts=2))
    registry.hear(withdrawn("a1", ("batch of r1", ["e2"]), waiting=3, part=1, parts=2), 1)
    registry.hear(withdrawn("b0", ("batch of r1", ["e1", "e2"]), waiting=1), 2)
    (item,) = (await registry.get("/api/models/support/withdrawals"))["items"]
    assert (item["waiting"], item["examples"], item["answers"]) == (4, 2, 3)


async def test_events_of_undeclared_models_are_refused(
    registry: Registry,
) -> None:
    assert DATASET_WITHDRAWALS in TOPICS
    first = registry.promoted("r1", withdrawn_through=4)
    value, headers = encode(withdrawn("x", ("batch of r1", ["e1"])), "dataset")
    await registry.registry.handle(
        Record(DATASET_WITHDRAWALS, 0, 5, b"support", value, tuple(headers))
    )
    assert (await registry.counts())[first] == 1
    value, headers = encode(withdrawn("y", model="stranger"), "dataset")
    with pytest.raises(UnknownModel):
        await registry.registry.handle(
            Record(DATASET_WITHDRAWALS, 0, 6, b"stranger", value, tuple(headers))
        )
