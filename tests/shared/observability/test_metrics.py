"""The metric catalogue, and creation and removal of series."""

import re
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from shared.clock import ManualClock
from shared.errors import ObjectNotFound, StorageUnavailable
from shared.kafka.faust_metrics import FaustMetrics, FaustMonitor
from shared.kafka.lag import set_lag
from shared.observability.health import Health
from shared.observability.metrics import CATALOGUE, FAUST_PREFIX, Metric, Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, MemoryStore, local_folder
from tests.support.exported_metrics import check_exported

SERVICES = ("feedback", "dataset", "trainer", "registry")
MONITOR = SimpleNamespace(
    messages_received_total=7,
    events_total=5,
    events_active=1,
    messages_sent=4,
    send_errors=2,
    send_latency=[0.1, 0.3],
    rebalances=3,
    rebalance_end_latency=[],
)


def test_names_end_in_base_units() -> None:
    for row in CATALOGUE:
        assert re.fullmatch(r"(ratchet|faust)_[a-z_]+", row.name)
        assert row.name.endswith("_total") == (row.kind == "counter"), row
        assert bool(row.buckets) == (row.kind == "histogram"), row
        if row.unit in ("seconds", "bytes", "records"):
            assert row.name.endswith(f"_{row.unit}"), row
        assert not re.search(
            r"_(milliseconds|ms|minutes|hours|kilobytes|megabytes|percent)(_|$)", row.name
        )
        if re.search(
            r"(?<!per)_(seconds|bytes)$", row.name.removesuffix("_total").replace("_per_second", "")
        ):
            assert row.unit in ("seconds", "bytes"), row
        assert set(row.service.split(", ")) <= {*SERVICES, "any"}


@pytest.mark.parametrize("service", SERVICES)
def test_all_metrics_pass_promtool_check(service: str) -> None:
    metrics = Metrics(service)
    rows = [row for row in CATALOGUE if row.applies_to(service)]
    for row in rows:
        if not row.name.startswith(FAUST_PREFIX):
            touch(metrics, row)
    if any(row.name.startswith(FAUST_PREFIX) for row in rows):
        metrics.registry.register(FaustMetrics(cast(FaustMonitor, MONITOR)))
    check_exported(service, generate_latest(metrics.registry).decode())


def touch(metrics: Metrics, row: Metric) -> None:
    labels: Any = dict.fromkeys(row.labels, "some")
    if row.kind == "counter":
        metrics.count(row.name, **labels)
    elif row.kind == "gauge":
        metrics.set(row.name, 1, **labels)
    else:
        metrics.observe(row.name, 1, **labels)


def test_an_initialised_series_starts_at_zero_once() -> None:
    metrics = Metrics("trainer")
    labels: Any = {"model": "m", "outcome": "failed"}
    metrics.init_series("ratchet_training_runs_total", **labels)
    assert metrics.registry.get_sample_value("ratchet_training_runs_total", labels) == 0
    metrics.count("ratchet_training_runs_total", **labels)
    metrics.init_series("ratchet_training_runs_total", **labels)
    assert metrics.registry.get_sample_value("ratchet_training_runs_total", labels) == 1
    with pytest.raises(KeyError):
        metrics.init_series("ratchet_feedback_received_total", model="m", feedback_type="thumbs_up")


def test_series_are_removed_one_by_one_or_all_at_once() -> None:
    metrics, name = Metrics("registry"), "ratchet_registry_serves_champion"
    for target in ("a", "b", "c"):
        metrics.set(name, 1, model="m", target=target)
    metrics.remove_series(name, target="b", model="m")
    metrics.remove_series(name, target="never told", model="m")

    def remaining_targets() -> list[str]:
        return [
            target
            for target in ("a", "b", "c")
            if metrics.registry.get_sample_value(name, {"model": "m", "target": target})
        ]

    assert remaining_targets() == ["a", "c"]
    metrics.remove_series(name)
    assert remaining_targets() == []


def test_health_and_disks_are_read_at_each_scrape(tmp_path: Path) -> None:
    clock, metrics = ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), Metrics("trainer")
    health = Health(clock, stalled_after=10)
    export_process_metrics(
        metrics, health, {"work": tmp_path / "not" / "there yet", "object_store": None}
    )

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert (
        value("ratchet_service_live"),
        value("ratchet_service_ready"),
        value("ratchet_service_stalled_seconds"),
    ) == (1, 0, 0)
    health.mark_ready()
    assert value("ratchet_service_ready") == 1
    health.record_progress(busy=True)
    clock.advance(11)
    assert (
        value("ratchet_service_live"),
        value("ratchet_service_ready"),
        value("ratchet_service_stalled_seconds"),
    ) == (0, 0, 11)
    health.record_progress()
    assert (value("ratchet_service_live"), value("ratchet_service_stalled_seconds")) == (1, 0)
    free, size = (
        value("ratchet_disk_free_bytes", folder="work"),
        value("ratchet_disk_size_bytes", folder="work"),
    )
    assert free is not None
    assert size is not None
    assert 0 < free < size
    assert value("ratchet_disk_free_bytes", folder="object_store") is None


def test_a_failing_disk_leaves_other_metrics_intact(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(path: Path) -> None:
        raise OSError("the disk is gone")

    metrics = Metrics("trainer")
    export_process_metrics(
        metrics, Health(ManualClock(datetime(2026, 1, 1, tzinfo=UTC))), {"work": tmp_path}
    )
    monkeypatch.setattr("shared.observability.process_metrics.shutil.disk_usage", fail)
    free = metrics.registry.get_sample_value("ratchet_disk_free_bytes", {"folder": "work"})
    assert free is not None
    assert isnan(free)
    assert b"ratchet_service_live 1.0" in generate_latest(metrics.registry)


def test_store_failures_count_but_missing_objects_do_not(
    tmp_path: Path,
) -> None:
    class Away(MemoryStore):
        def list_keys(self, folder: str) -> list[str]:
            raise StorageUnavailable("nobody is there")

    metrics = Metrics("dataset")
    store = CountedStore(Away(), metrics)
    artefact = store.put("a/b", b"c")
    assert (store.get("a/b"), store.exists("a/b"), artefact.uri) == (b"c", True, "a/b")
    store.delete("a/b")
    with pytest.raises(ObjectNotFound):
        store.get("a/b")
    with pytest.raises(StorageUnavailable):
        store.list_keys("a")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnavailable):
        CountedStore(FsspecStore(str(tmp_path / "file")), metrics).put("a/b", b"c")
    counts = {
        operation: metrics.registry.get_sample_value(
            "ratchet_object_store_errors_total", {"operation": operation}
        )
        for operation in ("put", "get", "exists", "below", "delete")
    }
    assert counts == {"put": 1, "get": 0, "exists": 0, "below": 1, "delete": 0}


def test_only_a_local_folder_has_disk_metrics(tmp_path: Path) -> None:
    assert local_folder(str(tmp_path)) == local_folder(f"file://{tmp_path}") == tmp_path
    assert local_folder("memory://objects") is None


def test_the_lag_of_a_topic_sums_the_assigned_partitions() -> None:
    metrics = Metrics("registry")

    def lag(topic: str) -> float | None:
        return metrics.registry.get_sample_value(
            "ratchet_consumer_lag_records", {"group": "g", "topic": topic}
        )

    set_lag({("a", 0): 3, ("a", 2): 4, ("c", 0): 9}, "g", ("a", "b"), metrics)
    assert (lag("a"), lag("b"), lag("c")) == (7, 0, None)
    set_lag({}, "g", ("a", "b"), metrics)
    assert lag("a") == 0


def test_faust_metrics_have_base_units_and_one_prefix() -> None:
    values = {
        sample.name: sample.value
        for family in FaustMetrics(cast(FaustMonitor, MONITOR)).collect()
        for sample in family.samples
    }
    assert values == {
        "faust_messages_received_total": 7,
        "faust_events_total": 5,
        "faust_events_active": 1,
        "faust_messages_sent_total": 4,
        "faust_send_errors_total": 2,
        "faust_send_seconds": pytest.approx(0.2),
        "faust_rebalances_total": 3,
        "faust_rebalance_seconds": 0,
    }
