"""What room one event of 1 KB takes, on topics and in a dataset worker's memory: `python -m
benchmarks.streams.footprint` prints it.
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
from shared.config.model_file import BasePaths, ModelFile, Models
from shared.events import Artefact, FeedbackScored, Position
from shared.identity import digest_of
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED

START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ModelFile.model_validate(
    {"model": "model-0", "base": BasePaths(training="base", serving="base.gguf")}
)
"""By default: every example of this measurement is still in the window that is replayed from."""
MINIMAL_WINDOWS = MODEL.model_copy(
    update={
        "curation": MODEL.curation.model_copy(update={"share_window": 1}),
        "lanes": {
            name: lane.model_copy(update={"replay_window": 0}) for name, lane in MODEL.lanes.items()
        },
        "gate": MODEL.gate.model_copy(update={"held_out_newest": 1}),
    }
)
"""Where nearly every event has left that window and the held-out set, and is only known, so that it
counts once.
"""
MANIFEST = Artefact(uri="datasets/model-0/0/0/manifest.json", digest=digest_of(b""))


@dataclass(frozen=True)
class Footprint:
    """Bytes of one event, on average. `written` goes to `dataset.entries`, of which compaction
    leaves `entry`; a dataset worker holds `replayed` while the event may be replayed, and `known`
    while it would know it again.
    """

    received: float
    scored: float
    written: float
    entry: float
    replayed: float
    known: float


def footprint(events: int = 2000) -> Footprint:
    """Of the events that the benchmarks send, for one model whose batches close at 50."""
    received, scored, written, entry, replayed = _room(MODEL, events)
    *_, known = _room(MINIMAL_WINDOWS, events)
    return Footprint(received, scored, written, entry, replayed, known)


def _room(file: ModelFile, events: int) -> tuple[float, ...]:
    """Received, scored, written, left by compaction and in memory: bytes for each of so many
    events; in memory what each of the second half adds, as seen when batches have closed and little
    waits.
    """
    received = scored = written = 0
    seen: list[tuple[int, int]] = []
    values: dict[bytes, bytes] = {}
    ledger = Ledger(file, 0)
    # What the ledger holds, and beside it the values as Faust's table has them.
    tracemalloc.start()
    for number, (event, bytes_received, bytes_scored, source) in enumerate(_flow(events), 1):
        received, scored = received + bytes_received, scored + bytes_scored
        bytes_written, closed = _take(ledger, values, event, source)
        written += bytes_written
        if closed and number >= events / 2:
            gc.collect()
            seen.append((number, tracemalloc.get_traced_memory()[0]))
    tracemalloc.stop()
    left = sum(_on_disk(key, value) for key, value in values.items())
    (first, before), (last, after) = seen[0], seen[-1]
    return (
        *(total / events for total in (received, scored, written, left)),
        (after - before) / (last - first),
    )


def _take(
    ledger: Ledger, values: dict[bytes, bytes], event: FeedbackScored, source: Position
) -> tuple[int, bool]:
    """Have an event decided upon and its entries put among the values; bytes written, and whether a
    batch has closed.
    """
    decided = ledger.decide(event, source, START + timedelta(seconds=source.offset))
    entries = [entry for entry in (decided.entry, decided.superseded) if entry]
    if closing := ledger.plan_batch():
        entries += ledger.close_batch(closing, MANIFEST)
    written = 0
    for entry in entries:
        key, value = entry.key.encode(), ledger.encoded_entry(entry.feedback_id)
        values[key] = value
        written += _on_disk(key, value)
    for lighter, value in ledger.lighter():
        values[lighter.encode()] = value
    return written, closing is not None


def _flow(events: int) -> Iterator[tuple[FeedbackScored, int, int, Position]]:
    """Scored events, how large each was before and after it was scored, and where it stands."""
    policies = Policies(Models({MODEL.model: MODEL}, Path()))
    for number in range(events):
        value, headers = encode(feedback(number, MODEL.model), "/load")
        found = score(Record(FEEDBACK_RECEIVED, 0, number, None, value, tuple(headers)), policies)
        assert isinstance(found.event, FeedbackScored)
        bytes_received = _on_disk(b"key-00", value, headers)
        bytes_scored = _on_disk(found.key.encode(), *encode(found.event, SOURCE))
        yield (
            found.event,
            bytes_received,
            bytes_scored,
            Position(topic=FEEDBACK_SCORED, partition=0, offset=number),
        )


def _on_disk(key: bytes, value: bytes, headers: list[tuple[str, bytes]] | None = None) -> int:
    """Bytes of a record in a log, without compression, and without its share of the batch's own 61."""
    return int(DefaultRecordBatchBuilder.size_of(key, value, headers or []))


def main() -> None:
    found = footprint()
    report(
        "footprint",
        [Result(f"{name}_bytes_per_event", value, "B") for name, value in vars(found).items()],
    )


if __name__ == "__main__":
    main()
