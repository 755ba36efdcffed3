"""How many bytes of feedback may be under way: received in part, or not yet acknowledged by Kafka."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from services.feedback.intake.responses import retry_after


class InFlightBudget:
    """Bytes that are taken and given back. `tell` hears how many are taken."""

    def __init__(self, most: int, tell: Callable[[int], None]) -> None:
        self._limit = most
        self._on_change = tell
        self.used_bytes = 0

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold `size` bytes meanwhile. Raises Problem (429) when there is no room for them; alone,
        a request always has room.
        """
        if self.used_bytes and self.used_bytes + size > self._limit:
            raise retry_after(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.used_bytes} bytes of feedback are under way; send this again in a second",
                1,
            )
        self._add(size)
        try:
            yield
        finally:
            self._add(-size)

    def _add(self, size: int) -> None:
        self.used_bytes += size
        self._on_change(self.used_bytes)
