"""Live feedback that one registry processes in a second of one core, with SQLite: run `python -m
benchmarks.registry.live_feedback_rate`.

- `kept`: the first rewards of a version, which are stored, each of another user.
- `passed_over`: later rewards of that version, which are not stored.
- `unnamed`: feedback without a version.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.results import Result, report
from benchmarks.streams.synthetic_feedback import feedback
from services.feedback.scoring import SOURCE, Policies, score
from services.registry.app import MAX_BATCH_SIZE
from services.registry.handlers import model_declared
from services.registry.rollout.live_monitor import monitor_live_rewards
from services.registry.store.database import Database
from services.registry.store.queries import aliases_of
from shared.config.model_file import BasePaths, ModelFile
from shared.config.models import Models
from shared.events import FeedbackScored
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ModelFile.model_validate(
    {"model": "model-0", "base": BasePaths(training="base", serving="base.gguf")}
)


def measure_rates(folder: Path, events: int) -> dict[str, float]:
    """Return the events a second of each kind, over `events` of the kinds that are not stored."""
    database = Database(f"sqlite:///{folder / 'registry.db'}")
    database.migrate()
    database.run_sync(partial(model_declared, model=MODEL, now=NOW))
    aliases = database.run_sync(lambda session: aliases_of(session, MODEL.model))
    assert aliases is not None
    rates = {
        "kept": _rate(database, _scored(0, MODEL.monitor.most_rewards, aliases.champion)),
        "passed_over": _rate(
            database, _scored(MODEL.monitor.most_rewards, events, aliases.champion)
        ),
        "unnamed": _rate(database, _scored(MODEL.monitor.most_rewards + events, events, None)),
    }
    database.close()
    return rates


def _rate(database: Database, records: Sequence[Record]) -> float:
    started = time.process_time()
    for first in range(0, len(records), MAX_BATCH_SIZE):
        feedback_events = [
            decode(record.value, record.headers, FeedbackScored).event
            for record in records[first : first + MAX_BATCH_SIZE]
        ]
        database.run_sync(
            partial(monitor_live_rewards, model=MODEL, feedback=feedback_events, now=NOW)
        )
    return len(records) / (time.process_time() - started)


def _scored(first: int, count: int, version: str | None) -> list[Record]:
    """Return records of `feedback.scored`, each of another user."""
    policies = Policies(Models({MODEL.model: MODEL}, Path()))
    records = []
    for number in range(first, first + count):
        event = feedback(number, MODEL.model).model_copy(
            update={"user_id": f"user-{number}", "model_version": version}
        )
        value, headers = encode(event, "/load")
        result = score(Record(FEEDBACK_RECEIVED, 0, number, None, value, tuple(headers)), policies)
        assert isinstance(result.event, FeedbackScored)
        value, headers = encode(result.event, SOURCE)
        records.append(Record(FEEDBACK_SCORED, 0, number, None, value, tuple(headers)))
    return records


def main() -> None:
    with TemporaryDirectory() as folder:
        rates = measure_rates(Path(folder), 2000)
    report(
        "live_feedback_rate",
        [
            Result(f"{name}_events_per_second", value, "events/s of a core")
            for name, value in rates.items()
        ],
    )


if __name__ == "__main__":
    main()
