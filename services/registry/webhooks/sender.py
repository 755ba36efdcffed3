"""Sends webhooks while this replica holds their lease. Each receiver has a loop of its own, so
that a hanging one delays no other.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import httpx

from services.registry.store.audit_chain import fields_of
from services.registry.store.database import Database, Session
from services.registry.store.leases import LEASE_SECONDS, Lease
from services.registry.store.tables import AuditRow, WebhookDeliveryRow
from services.registry.store.webhook_queries import (
    add_delivery,
    due_deliveries,
    end_deliveries,
    end_deliveries_of_others,
    next_entries,
    record_attempt,
)
from services.registry.webhooks.endpoints import WebhookEndpoint
from services.registry.webhooks.messages import (
    GONE,
    event_type,
    message_body,
    message_id,
    next_delay,
    signed_headers,
)
from shared.errors import Unavailable
from shared.service.runtime import Runtime

TIMEOUT_SECONDS = 5.0
"""Time for a whole attempt, from the connection to the status of the response."""

MAX_AGE = timedelta(days=3)
"""Age of an event that is no longer announced: webhooks were off when it happened."""

METRIC = "ratchet_registry_webhooks_total"
RESULTS = ("delivered", "failed", "abandoned", "gone")

_AT_ONCE = 100


class WebhookSender:
    """Turns audit entries into deliveries, and delivers each at least once or gives it up."""

    def __init__(
        self,
        database: Database,
        endpoints: Sequence[WebhookEndpoint],
        client: httpx.AsyncClient,
        runtime: Runtime,
        replica: str = "one",
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        idle_seconds: float = 1.0,
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._client = client
        self._clock = runtime.clock
        self._log = runtime.log
        self._metrics = runtime.metrics
        self._timeout_seconds = timeout_seconds
        self._idle_seconds = idle_seconds
        self._gone: set[str] = set()
        self._lease = Lease(
            database, "webhooks", replica, runtime.clock, runtime.log, lease_seconds=lease_seconds
        )
        for endpoint in endpoints:
            for result in RESULTS:
                self._metrics.init_series(METRIC, webhook=endpoint.name, result=result)

    async def run(self) -> None:
        """Send until cancelled. Without receivers, nothing is done."""
        if not self._endpoints:
            await asyncio.Event().wait()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lease.maintain())
                tasks.create_task(self._repeat_fan_out())
                for endpoint in self._endpoints:
                    tasks.create_task(self._repeat_send(endpoint))
        finally:
            await self._lease.release()

    async def _repeat_fan_out(self) -> None:
        while True:
            try:
                more = await self.fan_out()
            except Unavailable as error:
                self._log.warning("webhooks postponed", reason=str(error))
                more = False
            if not more:
                await asyncio.sleep(self._idle_seconds)

    async def _repeat_send(self, endpoint: WebhookEndpoint) -> None:
        while True:
            try:
                await self.send_due(endpoint)
            except Unavailable as error:
                self._log.warning("webhooks postponed", webhook=endpoint.name, reason=str(error))
            await asyncio.sleep(self._idle_seconds)

    async def fan_out(self) -> bool:
        """Turn new audit entries into deliveries. Returns whether more may wait; False while
        another replica holds the lease.
        """
        if not await self._lease.ensure_held():
            return False
        return await self._lease.run(self._add_deliveries)

    def _add_deliveries(self, session: Session) -> bool:
        now = self._clock.now()
        entries = next_entries(session, _AT_ONCE)
        for entry in entries:
            event = event_type(entry.action, entry.actor)
            if event is None or entry.number is None or now - entry.at > MAX_AGE:
                continue
            for endpoint in self._endpoints:
                if endpoint.wants(event, entry.model):
                    add_delivery(session, endpoint.name, entry.number, now)
        end_deliveries_of_others(session, [endpoint.name for endpoint in self._endpoints], now)
        return len(entries) == _AT_ONCE

    async def send_due(self, endpoint: WebhookEndpoint) -> None:
        """Attempt each delivery to a receiver that is due, in order. Raises Unavailable."""
        if not await self._lease.ensure_held():
            return
        if endpoint.name in self._gone:
            await self._end_as_gone(endpoint)
            return
        due = await self._database.run(
            lambda session: due_deliveries(session, endpoint.name, self._clock.now(), _AT_ONCE)
        )
        for delivery, entry in due:
            if not await self._lease.ensure_held() or endpoint.name in self._gone:
                return
            status, result = await self._attempt(endpoint, entry)
            await self._record(endpoint, delivery, status, result)

    async def _attempt(self, endpoint: WebhookEndpoint, entry: AuditRow) -> tuple[int, str]:
        """Send a message. Returns the status of the response, 0 without one, and its description,
        which has neither URL nor secret.
        """
        event = event_type(entry.action, entry.actor)
        assert event is not None
        assert entry.hash is not None
        body = message_body(event, fields_of(entry))
        headers = signed_headers(message_id(entry.hash), self._clock.now(), body, endpoint.keys) | {
            "content-type": "application/json",
            "user-agent": "ratchet",
        }
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream(
                    "POST",
                    endpoint.url.get_secret_value(),
                    content=body,
                    headers=headers,
                    follow_redirects=False,
                    timeout=self._timeout_seconds,
                ) as response,
            ):
                return response.status_code, f"answered {response.status_code}"
        except TimeoutError:
            return 0, f"no response within {self._timeout_seconds:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return 0, type(error).__name__

    async def _record(
        self, endpoint: WebhookEndpoint, delivery: WebhookDeliveryRow, status: int, result: str
    ) -> None:
        now = self._clock.now()
        if status == GONE:
            self._gone.add(endpoint.name)
            self._log.error(
                "webhook gone, no further messages until the registry restarts",
                webhook=endpoint.name,
                advice=f"remove it from the file, or make it answer other than {GONE}",
            )
            await self._end_as_gone(endpoint)
            return
        is_delivered = 200 <= status < 300
        delay = None if is_delivered else next_delay(delivery.attempts + 1)
        await self._lease.run(
            partial(
                record_attempt,
                delivery=delivery.id,
                result=result,
                due_at=now + delay if delay is not None else None,
                ended_at=now if delay is None else None,
            )
        )
        if is_delivered:
            self._metrics.count(METRIC, webhook=endpoint.name, result="delivered")
            return
        self._metrics.count(METRIC, webhook=endpoint.name, result="failed")
        if delay is None:
            self._metrics.count(METRIC, webhook=endpoint.name, result="abandoned")
            self._log.error(
                "webhook abandoned",
                webhook=endpoint.name,
                entry=delivery.number,
                attempts=delivery.attempts + 1,
                reason=result,
            )
        else:
            self._log.warning(
                "webhook failed, retrying",
                webhook=endpoint.name,
                entry=delivery.number,
                attempts=delivery.attempts + 1,
                seconds=delay.total_seconds(),
                reason=result,
            )

    async def _end_as_gone(self, endpoint: WebhookEndpoint) -> None:
        ended = await self._lease.run(
            partial(
                end_deliveries,
                endpoint=endpoint.name,
                result=f"answered {GONE}",
                now=self._clock.now(),
            )
        )
        for _ in range(ended):
            self._metrics.count(METRIC, webhook=endpoint.name, result="gone")
