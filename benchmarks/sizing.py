"""Capacity calculation by event rate and by number of models: `python -m benchmarks.sizing` prints
the tables of docs/scaling.md.

Inputs are figures that other commands print, named assumptions, Kafka's partitioner and the topic
table; nothing is measured here.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from aiokafka.partitioner import murmur2

from services.registry.settings import RegistrySettings
from shared.config.model_file import BasePaths, LaneSettings, ModelFile
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, TOPICS

DAY = 86_400
RATES = (10, 1_000, 100_000)
MODELS = (1, 100, 10_000)


@dataclass(frozen=True)
class MeasuredRates:
    """Measured on 2 cores: events a second of one worker, seconds from a batch to its outcome, and
    bytes of one event of 1 KB.
    """

    feedback_rate: float = 1280
    dataset_rate: float = 1230
    batch_seconds: float = 45.8
    received: float = 972
    scored: float = 1280
    written: float = 2820
    entry: float = 1100
    replayed: float = 4090
    known: float = 1290


@dataclass(frozen=True)
class Assumptions:
    """Unmeasured values, and values that you choose. `use` is the planned share of a measured rate
    and of memory; `days` is the model files' `deduplicate_days`.
    """

    use: float = 0.5
    days: int = 1
    worker_memory: float = 64e9
    replicas: int = 3
    broker_writes: float = 100e6
    broker_disk: float = 8e12
    disk_use: float = 0.7
    trained_share: float = 0.01
    examples: int = 50
    parameters: float = 135e6
    probe_seconds: float = 10


MEASURED, ASSUMED = MeasuredRates(), Assumptions()
_RETENTION_DAYS = {topic.name: topic.retention.days for topic in TOPICS if topic.retention}
_MIN_PARTITIONS = next(topic.partitions for topic in TOPICS if topic.name == FEEDBACK_SCORED)
_MAX_SHARDS = 1024


def workers(rate: float, measured: float) -> int:
    return ceil(rate / (measured * ASSUMED.use))


def dataset_workers(rate: float) -> int:
    """Return the workers needed for the rate or for memory, whichever is more: a power of two, so
    that each has the same number of partitions.
    """
    return _power_of_two(
        max(
            workers(rate, MEASURED.dataset_rate),
            ceil(memory(rate, ASSUMED.days) / (ASSUMED.worker_memory * ASSUMED.use)),
        )
    )


def partitions(rate: float) -> int:
    """Return a power of two, for the workers of both streams, at least that of the topic table."""
    return max(
        _power_of_two(workers(rate, MEASURED.feedback_rate)),
        dataset_workers(rate),
        _MIN_PARTITIONS,
    )


def shards(rate: float) -> int:
    """Return the shards of a model that gets all of the rate: one if one worker is enough, else
    four for each worker, up to the maximum.
    """
    return 1 if dataset_workers(rate) == 1 else min(_MAX_SHARDS, 4 * dataset_workers(rate))


def memory(rate: float, days: int) -> float:
    """Return the bytes that all dataset workers hold for deduplication."""
    return rate * DAY * days * MEASURED.known


def _power_of_two(minimum: int) -> int:
    return 1 << (minimum - 1).bit_length()


def largest_share(keys: Sequence[str], partition_count: int, members: int) -> float:
    """Return the share of all keys on the member with the most, if the partitions are assigned
    round-robin.
    """
    counts = Counter(
        ((murmur2(key.encode()) & 0x7FFFFFFF) % partition_count) % members for key in keys
    )
    return max(counts.values()) / len(keys)


def largest_worker_share(rate: float) -> float:
    """Return the share of all feedback on the busiest dataset worker, if it is all of the model
    `support`.
    """
    model = ModelFile(
        model="support", base=BasePaths(training="base", serving="base.gguf"), shards=shards(rate)
    )
    return largest_share(
        [model.key_of(shard) for shard in range(model.shards)],
        partitions(rate),
        dataset_workers(rate),
    )


def retained_bytes(rate: float, topic: str, size: float) -> float:
    """Return the bytes of a topic on all brokers once its retention time has passed."""
    return rate * DAY * _RETENTION_DAYS[topic] * size * ASSUMED.replicas


def entries_bytes(rate: float, days: int) -> float:
    return rate * DAY * days * MEASURED.entry * ASSUMED.replicas


def brokers(rate: float) -> int:
    writes = rate * (MEASURED.received + MEASURED.scored + MEASURED.written) * ASSUMED.replicas
    disk = (
        retained_bytes(rate, FEEDBACK_RECEIVED, MEASURED.received)
        + retained_bytes(rate, FEEDBACK_SCORED, MEASURED.scored)
        + entries_bytes(rate, ASSUMED.days)
    )
    return max(
        ASSUMED.replicas,
        ceil(writes / ASSUMED.broker_writes),
        ceil(disk / (ASSUMED.broker_disk * ASSUMED.disk_use)),
    )


def batches(rate: float) -> float:
    return rate * DAY * ASSUMED.trained_share / ASSUMED.examples


def training_hours(rate: float) -> float:
    """Return the hours of one trainer for the batches of a day."""
    return batches(rate) * MEASURED.batch_seconds / 3600


BY_RATE: Mapping[str, Callable[[int], str]] = {
    "events a day": lambda rate: format_number(rate * DAY),
    "feedback workers": lambda rate: format_number(workers(rate, MEASURED.feedback_rate)),
    "dataset workers": lambda rate: format_number(dataset_workers(rate)),
    "partitions": lambda rate: format_number(partitions(rate)),
    "`shards`, if one model gets it all": lambda rate: format_number(shards(rate)),
    "the busiest dataset worker then: share of its measured rate": lambda rate: (
        f"{rate * largest_worker_share(rate) / MEASURED.dataset_rate:.0%}"
    ),
    "and share of its memory": lambda rate: (
        f"{memory(rate, ASSUMED.days) * largest_worker_share(rate) / ASSUMED.worker_memory:.0%}"
    ),
    "memory of all dataset workers, `deduplicate_days` 1": lambda rate: format_bytes(
        memory(rate, 1)
    ),
    "the same with `deduplicate_days` 7": lambda rate: format_bytes(memory(rate, 7)),
    "written to Kafka, before replicas": lambda rate: (
        f"{format_bytes(rate * (MEASURED.received + MEASURED.scored + MEASURED.written))}/s"
    ),
    "`feedback.received`, a day": lambda rate: format_bytes(
        retained_bytes(rate, FEEDBACK_RECEIVED, MEASURED.received)
        / _RETENTION_DAYS[FEEDBACK_RECEIVED]
    ),
    "`feedback.scored`, a day": lambda rate: format_bytes(
        retained_bytes(rate, FEEDBACK_SCORED, MEASURED.scored) / _RETENTION_DAYS[FEEDBACK_SCORED]
    ),
    "both, when full (14 and 90 days)": lambda rate: format_bytes(
        retained_bytes(rate, FEEDBACK_RECEIVED, MEASURED.received)
        + retained_bytes(rate, FEEDBACK_SCORED, MEASURED.scored)
    ),
    "`dataset.entries`, compacted": lambda rate: format_bytes(entries_bytes(rate, ASSUMED.days)),
    "brokers": lambda rate: format_number(brokers(rate)),
    "batches a day": lambda rate: format_number(batches(rate)),
    "trainer-hours a day": lambda rate: format_number(training_hours(rate)),
    "trainers": lambda rate: format_number(ceil(training_hours(rate) / 24 / ASSUMED.use)),
}
"""Rows of the table by events a second."""

_REPLAYED = LaneSettings().replay_window
_VERSIONS_KEPT = RegistrySettings.model_fields["merged_kept"].default + 2


def windows(models: int, replayed: int) -> float:
    """Return the bytes that all dataset workers hold of the models' full replay windows."""
    return models * replayed * MEASURED.replayed


BY_MODELS: Mapping[str, Callable[[int], str]] = {
    f"memory of all dataset workers, `replay_window` {_REPLAYED:,}": lambda models: format_bytes(
        windows(models, _REPLAYED)
    ),
    "the same with `replay_window` 500": lambda models: format_bytes(windows(models, 500)),
    f"merged files, {_VERSIONS_KEPT} versions of each, F16": lambda models: format_bytes(
        models * _VERSIONS_KEPT * 2 * ASSUMED.parameters
    ),
    "target probes, of all registries together": lambda models: (
        f"{format_number(models / ASSUMED.probe_seconds)}/s"
    ),
    "trainer-hours, for one batch of each a day": lambda models: format_number(
        models * MEASURED.batch_seconds / 3600
    ),
    "trainers, for one batch of each a day": lambda models: format_number(
        ceil(models * MEASURED.batch_seconds / DAY / ASSUMED.use)
    ),
    "share of all models on the busiest of 16 dataset workers": lambda models: (
        f"{largest_share([f'model-{number}' for number in range(models)], 64, 16):.0%}"
    ),
}
"""Rows of the table by models, with one shard each."""


def format_number(number: float) -> str:
    """Format whole numbers unchanged, others with three digits: 1,024, 2.83, 28,300."""
    if isinstance(number, int):
        return f"{number:,}"
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 or rounded == int(rounded) else f"{rounded:g}"


def format_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{format_number(float(f'{size:.2g}'))} {unit}"


def table(title: str, columns: Sequence[int], rows: Mapping[str, Callable[[int], str]]) -> str:
    """Return a Markdown table."""
    head = [
        f"| {title} | " + " | ".join(f"{column:,}" for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    return "\n".join(
        [
            *head,
            *(
                f"| {name} | " + " | ".join(map(cell, columns)) + " |"
                for name, cell in rows.items()
            ),
        ]
    )


def tables() -> tuple[str, str]:
    return table("events a second", RATES, BY_RATE), table("models", MODELS, BY_MODELS)


if __name__ == "__main__":
    print("\n\n".join(tables()))
