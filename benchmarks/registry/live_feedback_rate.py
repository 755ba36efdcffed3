"""How much live feedback one registry hears in a second of one core: `python -m
benchmarks.registry.live_feedback_rate` prints it, for SQLite.

- `kept`: while the first rewards of a version are kept, each of another user.
- `passed_over`: afterwards, when there are enough of that version.
- `unnamed`: of feedback that names no version.
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
from shared.config.model_file import BasePaths, ModelFile, Models
from shared.events import FeedbackScored
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ModelFile.model_validate(
    {"model": "model-0", "base": BasePaths(training="base", serving="base.gguf")}
)


def measure_rates(folder: Path, events: int) -> dict[str, float]:
    """Events a second, by what becomes of them; so many of those that are not kept, of the others
    as many as are kept of a version.
    """
    database = Database(f"sqlite:///{folder / 'registry.db'}")
    database.migrate()
    database.run_sync(partial(model_declared, model=MODEL, now=NOW))
    aliases = database.run_sync(lambda session: aliases_of(session, MODEL.model))
    assert aliases is not None
    found = {
        "kept": _rate(database, _scored(0, MODEL.monitor.most_rewards, aliases.champion)),
        "passed_over": _rate(
            database, _scored(MODEL.monitor.most_rewards, events, aliases.champion)
        ),
        "unnamed": _rate(database, _scored(MODEL.monitor.most_rewards + events, events, None)),
    }
    database.close()
    return found


def _rate(database: Database, records: Sequence[Record]) -> float:
    started = time.process_time()
    for first in range(0, len(records), MAX_BATCH_SIZE):
        heard = [
            decode(record.value, record.headers, FeedbackScored).event
            for record in records[first : first + MAX_BATCH_SIZE]
        ]
        database.run_sync(partial(monitor_live_rewards, model=MODEL, feedback=heard, now=NOW))
    return len(records) / (time.process_time() - started)


def _scored(first: int, count: int, version: str | None) -> list[Record]:
    """Records of `feedback.scored`, each of a user of its own."""
    policies = Policies(Models({MODEL.model: MODEL}, Path()))
    records = []
    for number in range(first, first + count):
        said = feedback(number, MODEL.model).model_copy(
            update={"user_id": f"user-{number}", "model_version": version}
        )
        value, headers = encode(said, "/load")
        found = score(Record(FEEDBACK_RECEIVED, 0, number, None, value, tuple(headers)), policies)
        assert isinstance(found.event, FeedbackScored)
        value, headers = encode(found.event, SOURCE)
        records.append(Record(FEEDBACK_SCORED, 0, number, None, value, tuple(headers)))
    return records


def main() -> None:
    with TemporaryDirectory() as folder:
        found = measure_rates(Path(folder), 2000)
    report(
        "hearing",
        [
            Result(f"{name}_events_per_second", value, "events/s of a core")
            for name, value in found.items()
        ],
    )


if __name__ == "__main__":
    main()
