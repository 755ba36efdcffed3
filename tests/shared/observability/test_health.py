"""Health: liveness means progress."""

from datetime import UTC, datetime

import httpx
from prometheus_client import generate_latest

from ratchet.local_stack.ports import free_port
from shared.clock import ManualClock
from shared.http.health_server import serve_health
from shared.observability.health import Health
from shared.observability.metrics import CATALOGUE, Metrics


def test_silence_is_a_stall_only_with_pending_work() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    health = Health(clock, stalled_after=10)
    health.mark_ready()
    clock.advance(60)
    assert health.is_live
    health.record_progress(busy=True)
    clock.advance(11)
    assert not health.is_live
    assert not health.is_ready
    health.record_progress()
    assert health.is_ready


def test_repeated_recoveries_share_one_time_limit() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    health = Health(clock, stalled_after=10, recovered_after=100)
    health.mark_ready()
    health.mark_recovering()
    assert (health.is_live, health.is_ready) == (True, False)
    clock.advance(60)
    health.mark_recovering()
    health.record_progress()
    assert (health.is_live, health.is_ready) == (True, False)
    clock.advance(41)
    assert not health.is_live
    health.mark_ready()
    assert (health.is_live, health.is_ready) == (True, True)
    clock.advance(11)
    assert not health.is_live, "no progress since the recovery"


def test_progress_may_be_in_the_past() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    health = Health(clock, stalled_after=10)
    health.record_progress(busy=True, ago=8)
    assert health.is_live
    clock.advance(3)
    assert not health.is_live


def test_the_three_endpoints() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    health, metrics, port = Health(clock), Metrics("feedback"), free_port()
    stop = serve_health(health, metrics.registry, "127.0.0.1", port)
    try:
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503
        health.mark_ready()
        assert httpx.get(f"{url}/readyz").status_code == 200
        metrics.count("ratchet_dead_letters_total", topic="feedback.received")
        assert (
            'ratchet_dead_letters_total{topic="feedback.received"} 1.0'
            in httpx.get(f"{url}/metrics").text
        )
        assert httpx.get(f"{url}/elsewhere").status_code == 404
    finally:
        stop()


def test_the_metric_catalogue_is_closed_and_described() -> None:
    names = [row.name for row in CATALOGUE]
    assert len(names) == len(set(names))
    assert all(row.description.endswith(".") for row in CATALOGUE)
    for service in {row.service for row in CATALOGUE} - {"any"}:
        assert generate_latest(Metrics(service).registry)
