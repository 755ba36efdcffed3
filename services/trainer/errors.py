"""How a run can fail by its own fault; each becomes a `TrainingRolledBack` with advice, and the
consumer goes on.
"""

LOWER_LEARNING_RATE = "lower the lane's learning_rate, or set its precision to fp32"


class RunFailed(Exception):
    """This run cannot give a version, and trying again would not help. `advice` says what a person
    can do.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class RunInterrupted(Exception):
    """Training was stopped as it was asked to be, after `step` steps and with a checkpoint to go on
    from.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


class ChildProcessEnded(Exception):
    """The training process ended in the middle of a request; a new one may do better.
    `short_of_memory` when that is what it died of, or when it was killed, as a kernel does that has
    none left.
    """

    def __init__(self, reason: str, out_of_memory: bool = False) -> None:
        super().__init__(reason)
        self.out_of_memory = out_of_memory
