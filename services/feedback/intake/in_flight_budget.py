"""A bound on the bytes in flight: bodies being received, or not yet acknowledged by Kafka."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from services.feedback.intake.problems import retry_after


class InFlightBudget:
    """A budget of bytes. `on_change` is called with the used bytes after every change."""

    def __init__(self, limit: int, on_change: Callable[[int], None]) -> None:
        self._limit = limit
        self._on_change = on_change
        self.used_bytes = 0

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve `size` bytes inside the context. Raises IntakeProblem (429) if they exceed the
        budget; a single request always fits.
        """
        if self.used_bytes and self.used_bytes + size > self._limit:
            raise retry_after(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.used_bytes} bytes of feedback are in flight; send this again in a second",
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
