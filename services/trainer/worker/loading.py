"""Translation of errors while a base is loaded: a base that a library cannot load is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.trainer.errors import RunFailed
from services.trainer.worker.resource_exhaustion import is_disk_full, is_out_of_memory

CHECK_THE_BASE = "check base.training in the model file, and RATCHET_BASES"
OTHER_ARCHITECTURE = (
    "take a base that transformers loads as a causal language model, and whose files are complete"
)
_SHOWN = 300


@contextmanager
def refuse_unloadable() -> Iterator[None]:
    """Raise RunFailed for any error of the body, except a lack of memory or disk space: the library
    would fail in the same way in another process.
    """
    try:
        yield
    except RunFailed:
        raise
    except Exception as error:
        if is_out_of_memory(error) or is_disk_full(error):
            raise
        reason, advice = str(error), CHECK_THE_BASE
        if not isinstance(error, OSError):
            # Some messages end with a list of every known architecture.
            first_line = (reason.strip().splitlines() or [""])[0]
            reason, advice = f"{type(error).__name__}: {first_line[:_SHOWN]}", OTHER_ARCHITECTURE
        raise RunFailed(f"the base cannot be loaded: {reason}", advice) from error
