"""Capacity calculation of docs/scaling.md: its tables are computed from measurements."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from aiokafka.partitioner import DefaultPartitioner

from benchmarks.sizing import (
    ASSUMED,
    MEASURED,
    RATES,
    brokers,
    dataset_workers,
    format_bytes,
    format_number,
    largest_share,
    largest_worker_share,
    memory,
    partitions,
    retained_bytes,
    shards,
    tables,
    training_hours,
    workers,
)
from benchmarks.streams.footprint import footprint
from shared.messaging.topics import FEEDBACK_RECEIVED

SCALING = Path("docs/scaling.md").read_text()


def test_docs_have_the_computed_tables() -> None:
    by_rate, by_models = tables()
    assert by_rate in SCALING
    assert by_models in SCALING
    assert SCALING.count("|---|---|---|---|") == 2


def test_measured_rates_match_the_performance_docs() -> None:
    performance = " ".join(Path("docs/performance.md").read_text().split())
    rates = (
        f"{MEASURED.feedback_rate:,} events per second for one feedback worker and "
        f"{MEASURED.dataset_rate:,} for one dataset worker"
    )
    assert rates in performance
    assert f"{MEASURED.batch_seconds} s for {ASSUMED.examples} new examples" in performance


def test_event_sizes_match_the_footprint() -> None:
    for name, size in vars(footprint(events=500)).items():
        # With so few events, the doubling growth of dictionaries is visible in memory.
        exact = 0.3 if name in ("replayed", "known") else 0.15
        assert size == pytest.approx(getattr(MEASURED, name), rel=exact), name


def test_docs_list_the_assumptions() -> None:
    phrases = [
        f"at {ASSUMED.use:.0%} of the measured rate",
        f"{format_bytes(ASSUMED.worker_memory)} of memory, of which {ASSUMED.use:.0%}",
        f"`deduplicate_days` is {ASSUMED.days}",
        f"{ASSUMED.replicas} replicas",
        f"{format_bytes(ASSUMED.broker_writes)}/s",
        f"{format_bytes(ASSUMED.broker_disk)} of disk, of which {ASSUMED.disk_use:.0%}",
        f"{ASSUMED.trained_share:.0%} of the events",
        f"{ASSUMED.parameters / 1e6:.0f} million parameters",
    ]
    assert [phrase for phrase in phrases if phrase not in " ".join(SCALING.split())] == []


def test_keys_are_partitioned_as_by_a_kafka_client() -> None:
    keys = [f"support#{number}" for number in range(256)]
    partitioner = DefaultPartitioner()
    placed = Counter(partitioner(key.encode(), list(range(32)), list(range(32))) for key in keys)
    assert largest_share(keys, 32, 32) == max(placed.values()) / 256
    assert largest_share(["one"], 32, 4) == 1


def test_no_worker_exceeds_its_measured_rate() -> None:
    rates = [*RATES, *(Random(1).randint(1, 100_000) for _ in range(50))]
    for rate in rates:
        for streams, measured in (
            (workers(rate, MEASURED.feedback_rate), MEASURED.feedback_rate),
            (dataset_workers(rate), MEASURED.dataset_rate),
        ):
            assert streams * measured * ASSUMED.use >= rate
            assert streams <= partitions(rate)
        assert partitions(rate) % dataset_workers(rate) == 0
        assert (
            memory(rate, ASSUMED.days)
            <= dataset_workers(rate) * ASSUMED.worker_memory * ASSUMED.use
        )
        assert shards(rate) == min(1024, 4 * dataset_workers(rate)) or dataset_workers(rate) == 1
    for rate in RATES:
        assert rate * largest_worker_share(rate) < MEASURED.dataset_rate
    assert [
        memory(rate, ASSUMED.days) * largest_worker_share(rate) < ASSUMED.worker_memory
        for rate in RATES
    ] == [True, True, False]


def test_worked_example() -> None:
    """10 events a second are 864,000 a day: 972 bytes each, three replicas, for 14 days; 1,290
    bytes each for 7 days of deduplication; one in a hundred gives 172.8 batches of 50 a day, each
    45.8 seconds.
    """
    assert retained_bytes(10, FEEDBACK_RECEIVED, 972) == 864_000 * 972 * 3 * 14
    assert memory(10, 7) == 864_000 * 7 * MEASURED.known
    assert training_hours(10) == pytest.approx(172.8 * 45.8 / 3600)
    assert brokers(10) == 3
    assert [
        format_number(1024),
        format_number(2.827),
        format_number(28_272.0),
        format_number(0.01636),
    ] == [
        "1,024",
        "2.83",
        "28,300",
        "0.0164",
    ]
    assert [format_bytes(972), format_bytes(54.98e9), format_bytes(3.3e15)] == [
        "970 B",
        "55 GB",
        "3,300 TB",
    ]
