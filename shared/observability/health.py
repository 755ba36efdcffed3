"""Health state of a service: liveness, readiness and recovery."""

from shared.clock import Clock


class Health:
    """Health state of a service. The loop that does the work reports its progress."""

    def __init__(
        self, clock: Clock, stalled_after: float = 60.0, recovered_after: float = 600.0
    ) -> None:
        self._clock = clock
        self._stalled_after = stalled_after
        self._recovered_after = recovered_after
        self._ready = False
        self._recovering = False
        self._progress = clock.monotonic()
        self._busy = False

    def mark_ready(self, is_ready: bool = True) -> None:
        """Accept work (or, with False, stop accepting it). Ends a recovery."""
        self._ready = is_ready
        was_recovering, self._recovering = self._recovering, False
        self.record_progress(busy=was_recovering)

    def mark_recovering(self) -> None:
        """Accept no work until `mark_ready`.

        A recovery may take longer than a stall, but not without limit: repeated calls do not
        restart its time limit.
        """
        self._ready = False
        if not self._recovering:
            self.record_progress(busy=True)
            self._recovering = True

    def record_progress(self, busy: bool = False, ago: float = 0.0) -> None:
        """Record progress made `ago` seconds before now; `busy` when silence from then on means a
        stall.

        During a recovery only its end counts as progress.
        """
        if not self._recovering:
            self._progress = self._clock.monotonic() - ago
            self._busy = busy

    @property
    def stalled_seconds(self) -> float:
        """Seconds without progress although work is pending, or the duration of the recovery."""
        return self._clock.monotonic() - self._progress if self._busy else 0.0

    @property
    def is_recovering(self) -> bool:
        return self._recovering

    @property
    def is_ready(self) -> bool:
        return self._ready and self.is_live

    @property
    def is_live(self) -> bool:
        bound = self._recovered_after if self._recovering else self._stalled_after
        return self.stalled_seconds <= bound
