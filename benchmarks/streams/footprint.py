"""Bytes of one event of 1 KB on the topics and in a dataset worker's memory: run `python -m
benchmarks.streams.footprint`.
"""

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from benchmarks.results import Result, report
from benchmarks.streams.synthetic_feedback import feedback
from services.dataset.ledger.ledger import Ledger
from services.feedback.scoring import SOURCE, Policies, score
from shared.config.model_file import BasePaths, ModelFile
from shared.config.models import Models
from shared.events import Artefact, FeedbackScored, Position
from shared.identity import digest_of
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED

START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ModelFile.model_validate(
    {
        "model": "model-0",
        "base": BasePaths(training="base", serving="base.gguf"),
        "redaction": {"kinds": []},
    }
)
"""With default settings, every example of this measurement is still in the replay window. Nothing
is redacted: some of the random words look like telephone numbers.
"""
MINIMAL_WINDOWS = MODEL.model_copy(
    update={
        "curation": MODEL.curation.model_copy(update={"share_window": 1}),
        "lanes": {
            name: lane.model_copy(update={"replay_window": 0}) for name, lane in MODEL.lanes.items()
        },
        "gate": MODEL.gate.model_copy(update={"held_out_newest": 1}),
    }
)
"""Settings with which nearly every event has left that window and the held-out set, and is kept
only for deduplication.
"""
MANIFEST = Artefact(uri="datasets/model-0/0/0/manifest.json", digest=digest_of(b""))


@dataclass(frozen=True)
class Footprint:
    """Average bytes of one event. `written` is written to `dataset.entries`, `entry` remains there
    after compaction. In memory a dataset worker holds `replayed` while the event may be replayed,
    and `known` while it is kept only for deduplication.
    """

    received: float
    scored: float
    written: float
    entry: float
    replayed: float
    known: float


def footprint(events: int = 2000) -> Footprint:
    """Measure the benchmarks' events, for one model whose batches close at 50 examples."""
    received, scored, written, entry, replayed = _bytes_per_event(MODEL, events)
    *_, known = _bytes_per_event(MINIMAL_WINDOWS, events)
    return Footprint(received, scored, written, entry, replayed, known)


def _bytes_per_event(file: ModelFile, events: int) -> tuple[float, ...]:
    """Return the bytes per event: received, scored, written, remaining after compaction, in memory.

    Memory is the growth per event of the second half, measured when a batch has just closed and few
    examples are pending.
    """
    received = scored = written = 0
    samples: list[tuple[int, int]] = []
    values: dict[bytes, bytes] = {}
    ledger = Ledger(file, 0)
    # Traced are the ledger and the encoded values, which Faust's table holds.
    tracemalloc.start()
    for number, (event, bytes_received, bytes_scored, source) in enumerate(_flow(events), 1):
        received, scored = received + bytes_received, scored + bytes_scored
        bytes_written, closed = _take(ledger, values, event, source)
        written += bytes_written
        if closed and number >= events / 2:
            gc.collect()
            samples.append((number, tracemalloc.get_traced_memory()[0]))
    tracemalloc.stop()
    compacted = sum(_on_disk(key, value) for key, value in values.items())
    (first, before), (last, after) = samples[0], samples[-1]
    return (
        *(total / events for total in (received, scored, written, compacted)),
        (after - before) / (last - first),
    )


def _take(
    ledger: Ledger, values: dict[bytes, bytes], event: FeedbackScored, source: Position
) -> tuple[int, bool]:
    """Decide on an event and store its entries in `values`. Return the bytes written, and whether a
    batch has closed.
    """
    update = ledger.decide(event, source, START + timedelta(seconds=source.offset))
    updates = [update]
    if update.batch:
        updates.append(ledger.close_batch(update.batch, MANIFEST))
    written = 0
    for write in (write for update in updates for write in update.writes):
        key = write.key.encode()
        values[key] = write.value
        written += _on_disk(key, write.value)
    for smaller, value in (item for update in updates for item in update.shrunk):
        values[smaller.encode()] = value
    return written, len(updates) > 1


def _flow(events: int) -> Iterator[tuple[FeedbackScored, int, int, Position]]:
    """Yield scored events, their bytes before and after scoring, and their positions."""
    policies = Policies(Models({MODEL.model: MODEL}, Path()))
    for number in range(events):
        value, headers = encode(feedback(number, MODEL.model), "/load")
        result = score(Record(FEEDBACK_RECEIVED, 0, number, None, value, tuple(headers)), policies)
        assert isinstance(result.event, FeedbackScored)
        bytes_received = _on_disk(b"key-00", value, headers)
        bytes_scored = _on_disk(result.key.encode(), *encode(result.event, SOURCE))
        yield (
            result.event,
            bytes_received,
            bytes_scored,
            Position(topic=FEEDBACK_SCORED, partition=0, offset=number),
        )


def _on_disk(key: bytes, value: bytes, headers: list[tuple[str, bytes]] | None = None) -> int:
    """Return the bytes of an uncompressed record in a log, without its share of the 61-byte batch
    header.
    """
    return int(DefaultRecordBatchBuilder.size_of(key, value, headers or []))


def main() -> None:
    sizes = footprint()
    report(
        "footprint",
        [Result(f"{name}_bytes_per_event", value, "B") for name, value in vars(sizes).items()],
    )


if __name__ == "__main__":
    main()
