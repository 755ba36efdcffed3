"""What a run can run out of, and what a person can do about it."""

from errno import EDQUOT, EFBIG, ENOSPC

from shared.config.training import TrainingConfig

DISK_FULL_ERRNOS = (ENOSPC, EDQUOT, EFBIG)

OUT_OF_MEMORY = 71
"""The exit status of a child that had too little memory: another one begins with all of it."""

WORKER_LOST = 72
"""The exit status that stands for a child of which nobody can tell how it ended: its machine is
gone.
"""

FREE_DISK_SPACE = (
    "make room where RATCHET_WORK lies; the batch can be announced again then, and later runs "
    "replay its examples anyhow"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory could not be had. Torch's own class is known by its name; for a
    CPU it has none, only a message.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(
        error
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether it says that a file could not grow. Libraries in Rust raise errors of their own,
    which quote the system's number.
    """
    return (isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS) or any(
        f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS
    )


def memory_advice(config: TrainingConfig) -> str:
    """Advice for a run that had too little memory: what can still be lowered, the least harmful
    first.
    """
    ways = []
    if config.batch_size > 1:
        ways.append(
            f"batch_size {config.batch_size // 2} (now {config.batch_size}; the result is "
            "nearly the same)"
        )
    if not config.gradient_checkpointing:
        ways.append("gradient_checkpointing on (slower)")
    if config.quantisation == "none":
        ways.append("quantisation nf4 (a base of a quarter of the size)")
    if config.max_tokens > 256:
        ways.append(f"max_tokens {config.max_tokens // 2} (longer examples are cut)")
    return (
        "set for the lane, until it fits: " + ", ".join(ways)
        if ways
        else "a smaller base, or a machine with more memory"
    )
