"""How many bytes of feedback may be under way: received in part, or not yet acknowledged by Kafka."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from services.feedback.intake.responses import later


class Room:
    """Bytes that are taken and given back. `tell` hears how many are taken."""

    def __init__(self, most: int, tell: Callable[[int], None]) -> None:
        self._most = most
        self._tell = tell
        self.taken = 0

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold `size` bytes meanwhile. Raises Problem (429) when there is no room for them; alone,
        a request always has room.
        """
        if self.taken and self.taken + size > self._most:
            raise later(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.taken} bytes of feedback are under way; send this again in a second",
                1,
            )
        self._change(size)
        try:
            yield
        finally:
            self._change(-size)

    def _change(self, size: int) -> None:
        self.taken += size
        self._tell(self.taken)
