"""Which versions were made with examples that were withdrawn later. Pure.

A version's run learned from its own batch, or was judged by it; it may have replayed, or been
judged by, any batch that was run before, unless that one was rejected; and it has from its parent
what the parent had learned, unless it began again from the base. What was withdrawn before the run
began had no part in it. Which earlier examples were really drawn is not known here: a version
counts as made with all that may have been.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class VersionOrigin:
    """How a version was made: `parent` is absent where it began from the base; examples withdrawn
    after `through`, a place in `dataset.withdrawals`, may have had a part in it.
    """

    version: str
    parent: str | None
    batch_id: str
    run_started_at: datetime
    withdrawn_through: int


@dataclass(frozen=True, slots=True)
class WithdrawnExample:
    """An example that was withdrawn at a place, of a batch whose run `began`; None for one that has
    not been run.
    """

    feedback_id: str
    batch_id: str
    offset: int
    run_started_at: datetime | None
    run_rejected: bool


def withdrawn_by_version(
    versions: Iterable[VersionOrigin], withdrawn: Iterable[WithdrawnExample]
) -> dict[str, frozenset[str]]:
    """For each version, oldest first, the feedback ids of the withdrawn examples that it was made
    with.
    """
    examples = list(withdrawn)
    found: dict[str, frozenset[str]] = {}
    for made in versions:
        own = {gone.feedback_id for gone in examples if _had_a_part(gone, made)}
        inherited = found.get(made.parent, frozenset()) if made.parent is not None else frozenset()
        found[made.version] = inherited | own
    return found


def _had_a_part(gone: WithdrawnExample, made: VersionOrigin) -> bool:
    if gone.offset <= made.withdrawn_through:
        return False
    if gone.batch_id == made.batch_id:
        return True
    return (
        gone.run_started_at is not None
        and not gone.run_rejected
        and gone.run_started_at < made.run_started_at
    )
