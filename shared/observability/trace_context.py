"""W3C trace context: the `traceparent` header of a record, and the deterministic traceparents of
batches and versions.
"""

import re

from shared.identity import identity
from shared.messaging.codec import Headers

TRACEPARENT = "traceparent"


_NAMES = frozenset({TRACEPARENT, "ce_" + TRACEPARENT})


# Version ff and ids of zeros are invalid; later versions may append fields to those of version 00.
_FORM = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)"
)


_LENGTH = 55


def traceparent_in(headers: Headers) -> str | None:
    """Return the traceparent in a record's headers, or None.

    The last of several counts; an invalid one is ignored.
    """
    for name, value in reversed(headers):
        if value is not None and name.lower() in _NAMES and _FORM.match(value):
            return value[:_LENGTH].decode()
    return None


def traceparent_for_batch(batch_id: str) -> str:
    """Return the traceparent of a batch, the root of its trace."""
    return _traceparent(batch_id, "batch", batch_id)


def traceparent_for_version(batch_id: str, run_id: str) -> str:
    """Return the traceparent of the registry's first response to the run that made a version of a
    batch.
    """
    return _traceparent(batch_id, "register", run_id)


def _traceparent(batch_id: str, *what: str) -> str:
    return f"00-{identity('trace', batch_id)}-{identity('span', *what)[:16]}-01"
