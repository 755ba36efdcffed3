"""Translation of errors of a request into refusals."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from services.trainer.data.rendering import TemplateRefused
from services.trainer.errors import RunFailed
from services.trainer.protocol import RequestRefused
from services.trainer.worker.resource_exhaustion import (
    FREE_DISK_SPACE,
    is_disk_full,
    is_out_of_memory,
)

CHECK_THE_BASE = "check base.training in the model file, and RATCHET_BASES"
OTHER_ARCHITECTURE = (
    "take a base that transformers loads as a causal language model, and whose files are complete"
)
REPEATABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""Errors that another process would repeat. Those of a device are of other types, and a new process
may succeed.
"""
SEE_THE_LOG = (
    "the log of the training process has the details; if the base is of an architecture that "
    "docs/bases.md does not list, take another one"
)
CHECK_THE_TEMPLATE = (
    "take a base whose chat template accepts the conversations of the application, or send "
    "feedback with conversations that it accepts"
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


def refusal_of(error: Exception) -> RequestRefused | None:
    """Return the refusal of a request that failed; None if a new process may succeed."""
    match error:
        case RunFailed():
            return RequestRefused(reason=error.reason, advice=error.advice)
        case TemplateRefused():
            return RequestRefused(reason=str(error), advice=CHECK_THE_TEMPLATE)
    if is_disk_full(error):
        return RequestRefused(reason=f"the disk is full: {error}", advice=FREE_DISK_SPACE)
    if isinstance(error, REPEATABLE):
        logging.getLogger("ratchet.trainer").error("request failed", exc_info=error)
        return RequestRefused(reason=f"{type(error).__name__}: {error}", advice=SEE_THE_LOG)
    return None
