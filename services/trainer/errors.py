"""Failures of a run itself; each becomes a `TrainingRolledBack` with advice, and the consumer
continues with the next batch.
"""

LOWER_LEARNING_RATE = "lower the lane's learning_rate, or set its precision to fp32"


class RunFailed(Exception):
    """The run cannot produce a version, and a retry would not help. `advice` tells an operator
    what to do.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class RunInterrupted(Exception):
    """Training stopped on request after `step` steps, with a checkpoint to resume from."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


class TrainingProcessEnded(Exception):
    """The training process ended during a request; a new one may succeed.

    `out_of_memory` is true if it ran out of memory, or was killed as the kernel's OOM killer does.
    """

    def __init__(self, reason: str, out_of_memory: bool = False) -> None:
        super().__init__(reason)
        self.out_of_memory = out_of_memory
