"""Webhooks over real HTTP: delivered at least once, signed, retried, given up, and never in the way
of each other.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import select
from standardwebhooks import Webhook

from services.registry.handlers import HandlerContext, checkpoint_saved, training_rolled_back
from services.registry.rollout.holds import hold, release
from services.registry.store.audit_queries import add_audit_entry
from services.registry.store.tables import WebhookDeliveryRow
from services.registry.store.webhook_queries import KEPT, due_deliveries
from services.registry.versions.moves import roll_back
from services.registry.webhooks.endpoints import WebhookEndpoint
from services.registry.webhooks.messages import FIRST_DELAY, MAX_ATTEMPTS, next_delay
from services.registry.webhooks.sender import MAX_AGE, METRIC, WebhookSender
from shared.clock import Clock, ManualClock, SystemClock
from shared.observability.metrics import Metrics
from tests.registry.webhooks.receiver import Receiver, receiving
from tests.support.registry_events import NOW, DatabaseFixture, checkpoint, rejection
from tests.support.runtime import runtime_of

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


@dataclass
class Lines:
    """The lines of a log."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, _: Any, __: str, line: MutableMapping[str, Any]) -> str:
        self.lines.append(dict(line))
        raise structlog.DropEvent


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def endpoint(receiver: Receiver, name: str = "chat", **more: Any) -> WebhookEndpoint:
    return WebhookEndpoint(
        name=name, url=SecretStr(f"{receiver.url}/a-secret-path"), secret=SecretStr(SECRET), **more
    )


@dataclass
class Sending:
    """A sender with its clock, metrics and log."""

    registry_db: DatabaseFixture
    sender: WebhookSender
    clock: Clock
    metrics: Metrics
    log: Lines

    def hold(self, reason: str) -> None:
        now = self.clock.now()
        for change in (release, hold):
            work = partial(change, model="support", actor="operator", reason=reason, now=now)
            self.registry_db.run(work)

    def count(self, result: str, name: str = "chat") -> float | None:
        labels = {"webhook": name, "result": result}
        return self.metrics.registry.get_sample_value(METRIC, labels)

    @property
    def deliveries(self) -> list[WebhookDeliveryRow]:
        rows = select(WebhookDeliveryRow).order_by(WebhookDeliveryRow.id)
        return self.registry_db.run(lambda session: list(session.scalars(rows)))


@asynccontextmanager
async def sending(
    registry_db: DatabaseFixture,
    *endpoints: WebhookEndpoint,
    clock: Clock | None = None,
    replica: str = "one",
    timeout_seconds: float = 5.0,
) -> AsyncIterator[Sending]:
    lines, metrics, clock = Lines(), Metrics("registry"), clock or ManualClock(NOW)
    log = structlog.wrap_logger(
        None,
        processors=[structlog.stdlib.add_log_level, lines],
        wrapper_class=structlog.BoundLogger,
    )
    runtime = runtime_of("registry", clock, metrics, log=log)
    async with httpx.AsyncClient() as client:
        sender = WebhookSender(
            registry_db.database,
            endpoints,
            client,
            runtime,
            replica,
            timeout_seconds=timeout_seconds,
            idle_seconds=0.02,
        )
        await sender.fan_out()
        yield Sending(registry_db, sender, clock, metrics, lines)


async def until(condition: Any) -> None:
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not in 30 s")


async def test_decisions_reach_a_receiver_that_verifies_them(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    base, run = registry_db.champion, registry_db.run
    clock = SystemClock()
    async with sending(registry_db, endpoint(receiver), clock=clock) as at:
        context = HandlerContext(clock.now())
        sender = asyncio.create_task(at.sender.run())
        run(partial(checkpoint_saved, event=checkpoint("r1", base), context=context))
        event = rejection("r2", registry_db.champion)
        run(partial(training_rolled_back, event=event, context=context))
        at.hold("a look")
        now = clock.now()
        run(partial(roll_back, model="support", to=base, reason="bad", actor="operator", now=now))
        await until(lambda: at.count("delivered") == 5)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
    received = [
        Webhook(SECRET).verify(message.body, message.headers) for message in receiver.messages
    ]
    assert [(event["type"], event["data"]["run_id"]) for event in received] == [
        ("verdict.promoted", "r1"),
        ("champion.promoted", "r1"),
        ("verdict.rejected", "r2"),
        ("model.held", None),
        ("champion.rolled_back", None),
    ]
    assert received[-1]["data"]["version"] == base
    assert len(set(receiver.ids)) == 5
    assert at.count("failed") == 0


async def test_history_and_other_events_are_not_sent(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    """Webhooks begin at their first start, and after a pause do not repeat what is long past."""
    clock = ManualClock(NOW)
    only = endpoint(receiver, events=frozenset({"model.released"}))
    async with sending(registry_db, only, clock=clock) as at:
        at.hold("before a pause")
        at.hold("once more")
        clock.advance(MAX_AGE.total_seconds() + 1)
        await at.sender.fan_out()
        assert at.deliveries == []
        at.hold("now")
        await at.sender.fan_out()
        await at.sender.send_due(only)
    assert len(receiver.messages) == 1
    assert b'"reason":"now"' in receiver.messages[0].body


async def test_failed_message_is_repeated_under_its_id(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    clock, chat = ManualClock(NOW), endpoint(receiver)
    async with sending(registry_db, chat, clock=clock) as at:
        at.hold("a look")
        await at.sender.fan_out()
        receiver.status = 500
        await at.sender.send_due(chat)
        await at.sender.send_due(chat)
        assert len(receiver.messages) == 1, "not before its time"
        clock.advance(FIRST_DELAY.total_seconds())
        receiver.status = 204
        await at.sender.send_due(chat)
        clock.advance(3600)
        await at.sender.send_due(chat)
    first, second = receiver.messages
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 5
    (delivery,) = at.deliveries
    assert (delivery.attempts, delivery.result) == (2, "answered 204")
    assert delivery.ended_at is not None
    assert (at.count("delivered"), at.count("failed"), at.count("abandoned")) == (1, 1, 0)


async def test_message_is_given_up_after_the_last_attempt(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    clock, chat = ManualClock(NOW), endpoint(receiver)
    receiver.status = 503
    async with sending(registry_db, chat, clock=clock) as at:
        at.hold("a look")
        await at.sender.fan_out()
        for attempt in range(1, MAX_ATTEMPTS + 3):
            await at.sender.send_due(chat)
            clock.advance((next_delay(attempt) or FIRST_DELAY).total_seconds())
        assert len(receiver.messages) == MAX_ATTEMPTS
        assert (at.count("failed"), at.count("abandoned")) == (MAX_ATTEMPTS, 1)
        abandoned = [line for line in at.log.lines if line["event"] == "webhook abandoned"]
        assert [(line["webhook"], line["reason"]) for line in abandoned] == [
            ("chat", "answered 503")
        ]
        clock.advance(KEPT.total_seconds() + 1)
        await at.sender.fan_out()
        assert at.deliveries == [], "ended deliveries are deleted after a while"


async def test_receiver_that_hangs_delays_no_other(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    with receiving() as quick:
        receiver.hangs = True
        slow, fast = endpoint(receiver, "slow"), endpoint(quick, "fast")
        clock = SystemClock()
        async with sending(registry_db, slow, fast, clock=clock, timeout_seconds=2.0) as at:
            sender = asyncio.create_task(at.sender.run())
            at.hold("a look")
            await until(lambda: quick.messages)
            assert at.count("failed", "slow") == 0, "the other attempt has not ended"
            await until(lambda: at.count("failed", "slow"))
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        assert {row.endpoint: row.result for row in at.deliveries} == {
            "slow": "no response within 2 s",
            "fast": "answered 204",
        }


async def test_receiver_that_is_gone_gets_nothing_more(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    chat = endpoint(receiver)
    receiver.status = 410
    async with sending(registry_db, chat) as at:
        at.hold("first")
        at.hold("second")
        await at.sender.fan_out()
        waiting = len(at.deliveries)
        await at.sender.send_due(chat)
        at.hold("third")
        await at.sender.fan_out()
        await at.sender.send_due(chat)
        assert len(receiver.messages) == 1
        assert {row.result for row in at.deliveries} == {"answered 410"}
        assert at.count("gone") == len(at.deliveries) > waiting
        assert [line["event"] for line in at.log.lines if line["level"] == "error"] == [
            "webhook gone, no further messages until the registry restarts"
        ]


async def test_redirect_is_a_failure(registry_db: DatabaseFixture, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.status, receiver.headers = 307, {"location": f"{elsewhere.url}/there"}
        chat = endpoint(receiver)
        async with sending(registry_db, chat) as at:
            at.hold("a look")
            await at.sender.fan_out()
            await at.sender.send_due(chat)
        assert elsewhere.messages == []
        assert [row.result for row in at.deliveries] == ["answered 307"]


async def test_log_and_rows_have_no_secret(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    """Not for a refused connection, an error or a receiver that is gone."""
    unreachable = WebhookEndpoint(
        name="unreachable",
        url=SecretStr("http://127.0.0.1:9/a-secret-path"),
        secret=SecretStr(SECRET),
    )
    chat = endpoint(receiver)
    receiver.status = 500
    async with sending(registry_db, chat, unreachable) as at:
        at.hold("a look")
        await at.sender.fan_out()
        for one in (chat, unreachable):
            await at.sender.send_due(one)
        receiver.status = 410
        at.hold("again")
        await at.sender.fan_out()
        await at.sender.send_due(chat)
    written = repr([at.log.lines, [vars(row) for row in at.deliveries]])
    assert "ConnectError" in written
    assert len(at.log.lines) >= 3
    for secret in ("a-secret-path", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in written


async def test_one_replica_sends(registry_db: DatabaseFixture, receiver: Receiver) -> None:
    chat = endpoint(receiver)
    async with (
        sending(registry_db, chat) as first,
        sending(registry_db, chat, replica="two") as second,
    ):
        first.hold("a look")
        assert not await second.sender.fan_out()
        await second.sender.send_due(chat)
        assert receiver.messages == []
        await first.sender.fan_out()
        await first.sender.send_due(chat)
        assert len(receiver.messages) == 1
        await first.sender._lease.release()
        first.hold("after a failover")
        await second.sender.fan_out()
        await second.sender.send_due(chat)
    assert len(set(receiver.ids)) == len(receiver.ids) > 1


async def test_lost_record_of_a_delivery_repeats_its_id(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    """The replica dies after the response: its successor sends the same message again."""
    chat = endpoint(receiver)
    async with (
        sending(registry_db, chat) as first,
        sending(registry_db, chat, replica="two") as second,
    ):
        first.hold("a look")
        await first.sender.fan_out()
        ((delivery, entry),) = registry_db.run(_due)
        await first.sender._attempt(chat, entry)
        await first.sender._lease.release()
        await second.sender.send_due(chat)
    assert delivery.attempts == 0
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


async def test_deliveries_to_a_removed_receiver_end(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    async with sending(registry_db, endpoint(receiver)) as at:
        at.hold("a look")
        await at.sender.fan_out()
        await at.sender._lease.release()
    async with sending(registry_db, endpoint(receiver, "another")) as at:
        await at.sender.fan_out()
        assert {(row.endpoint, row.result) for row in at.deliveries} == {
            ("chat", "not in the file")
        }


async def test_long_queue_is_fanned_out_in_parts(
    registry_db: DatabaseFixture, receiver: Receiver
) -> None:
    async with sending(registry_db, endpoint(receiver)) as at:
        for number in range(120):
            registry_db.run(
                partial(
                    add_audit_entry,
                    model="support",
                    actor="operator",
                    action="hold",
                    reason=f"{number}",
                    now=NOW,
                )
            )
        assert await at.sender.fan_out()
        assert not await at.sender.fan_out()
        assert len(at.deliveries) == 120


def _due(session: Any) -> Any:
    return due_deliveries(session, "chat", NOW, 9)
