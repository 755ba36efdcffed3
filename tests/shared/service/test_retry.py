"""The retry policy."""

from collections.abc import Awaitable

import pytest
import structlog

from shared.errors import StorageUnavailable
from shared.service.retry import RetryPolicy

LOG = structlog.stdlib.get_logger("ratchet.test")


class Action:
    """Fails a number of times, then returns the number of calls."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.calls = 0

    async def call(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise StorageUnavailable("away")
        return self.calls


async def test_an_action_is_repeated_until_it_succeeds() -> None:
    assert await RetryPolicy(attempts=3, seconds=0).call(Action(2).call, LOG) == 3


async def test_the_last_error_propagates() -> None:
    action = Action(9)
    with pytest.raises(StorageUnavailable):
        await RetryPolicy(attempts=3, seconds=0).call(action.call, LOG)
    assert action.calls == 3


async def test_a_plain_function_that_returns_an_awaitable_is_awaited() -> None:
    """tenacity alone would return the coroutine of a lambda without awaiting it."""
    action = Action(1)

    def call() -> Awaitable[int]:
        return action.call()

    assert await RetryPolicy(attempts=3, seconds=0).call(call, LOG) == 2
