"""Detection of exhausted memory and disk space, with advice."""

from errno import EDQUOT, EFBIG, ENOSPC

from shared.config.training import TrainingConfig

DISK_FULL_ERRNOS = (ENOSPC, EDQUOT, EFBIG)

OUT_OF_MEMORY = 71
"""Exit status of a training process that ran out of memory; a new one starts with all of it free.
"""

WORKER_LOST = 72
"""Exit status of a training process whose end is unknown because its machine is lost."""

FREE_DISK_SPACE = (
    "free disk space in the RATCHET_WORK folder, then announce the batch again; later runs replay "
    "its examples in any case"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error reports that memory could not be allocated. Torch has a class for
    that, identified by its name; on a CPU it raises only a message.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(
        error
    )


def is_disk_full(error: BaseException) -> bool:
    """Return True if an error reports that a file could not grow. Rust libraries raise their own
    errors, which contain the system's error number.
    """
    return (isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS) or any(
        f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS
    )


def memory_advice(config: TrainingConfig) -> str:
    """Return advice for a run that ran out of memory: the settings that can still be lowered, the
    least harmful first.
    """
    options = []
    if config.batch_size > 1:
        options.append(
            f"batch_size {config.batch_size // 2} (now {config.batch_size}; the result is "
            "nearly the same)"
        )
    if not config.gradient_checkpointing:
        options.append("gradient_checkpointing on (slower)")
    if config.quantisation == "none":
        options.append("quantisation nf4 (a base of a quarter of the size)")
    if config.max_tokens > 256:
        options.append(f"max_tokens {config.max_tokens // 2} (longer examples are cut)")
    return (
        "change the lane's settings, in this order, until it fits: " + ", ".join(options)
        if options
        else "use a smaller base, or a machine with more memory"
    )
