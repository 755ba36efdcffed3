"""The log of a warm-up: it counts, every few seconds and at the end."""

from datetime import UTC, datetime
from typing import cast

import structlog
from structlog.testing import capture_logs

from services.trainer.protocol import EvaluationProgress
from services.trainer.warm_up import LOG_EVERY_SECONDS, CountLog
from shared.clock import ManualClock
from shared.logs import Log


async def test_a_warm_up_counts_what_is_done() -> None:
    clock = ManualClock(datetime(2026, 9, 1, tzinfo=UTC))
    with capture_logs() as lines:
        count = CountLog("regression answers", cast(Log, structlog.get_logger()), clock)
        for done in (4, 12, 16, 40, 42):
            clock.advance(LOG_EVERY_SECONDS / 2)
            await count(EvaluationProgress(done=done, total=42))
    assert [line["event"] for line in lines] == [
        "warming up: regression answers 12 of 42",
        "warming up: regression answers 40 of 42",
        "warming up: regression answers 42 of 42",
    ]
