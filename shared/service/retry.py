"""Retry policy: a bounded number of attempts with a pause between them (tenacity)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed
from tenacity import stop_after_attempt as stop_after

from shared.errors import Unavailable
from shared.logs import Log

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Repeats an action while it raises `Unavailable`; any other error propagates immediately.

    The error of the last attempt propagates unchanged, so that the process ends without committing.
    """

    attempts: int = 30
    seconds: float = 1.0

    async def call(
        self, action: Callable[[], Awaitable[T]], log: Log | None = None, **fields: str | int | None
    ) -> T:
        """Return the result of the first successful attempt.

        `fields` describe the action in the log line of each failed attempt.
        """

        def log_failure(state: RetryCallState) -> None:
            reason = str(state.outcome.exception()) if state.outcome else ""
            if log is None:
                return
            log.warning("retrying", attempt=state.attempt_number, reason=reason, **fields)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after(self.attempts),
            wait=wait_fixed(self.seconds),
            before_sleep=log_failure,
            reraise=True,
        )

        async def attempt() -> T:
            # tenacity awaits coroutine functions only, not every callable that returns an awaitable
            return await action()

        return await retrying(attempt)
