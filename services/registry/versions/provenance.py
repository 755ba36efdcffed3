"""Assignment of withdrawn examples to the versions that may have used them. Pure.

A version's run trained on its own batch or was evaluated with it. It may have replayed, or been
evaluated with, any batch that was run before, unless that batch was quarantined. It inherits what
its parent learned, unless it started again from the base. Examples withdrawn before the run started
had no part in it. The examples that were really drawn from earlier batches are not recorded here,
so a version counts as made with all examples that it may have used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class VersionOrigin:
    """Origin of a version. `parent` is None when it was trained from the base. Examples withdrawn
    after the offset `withdrawn_through` in `dataset.withdrawals` may have been used.
    """

    version: str
    parent: str | None
    batch_id: str
    run_started_at: datetime
    withdrawn_through: int


@dataclass(frozen=True, slots=True)
class WithdrawnExample:
    """An example withdrawn at an offset of `dataset.withdrawals`. `run_started_at` is the start of
    its batch's run, None for a batch that has not been run. `run_rejected` is true if the run's
    rejection quarantined the batch.
    """

    feedback_id: str
    batch_id: str
    offset: int
    run_started_at: datetime | None
    run_rejected: bool


def withdrawn_by_version(
    versions: Iterable[VersionOrigin], withdrawn: Iterable[WithdrawnExample]
) -> dict[str, frozenset[str]]:
    """Return the feedback ids of the withdrawn examples that each version was made with.

    `versions` are in order of creation, oldest first.
    """
    examples = list(withdrawn)
    used: dict[str, frozenset[str]] = {}
    for version in versions:
        own = {example.feedback_id for example in examples if _may_have_used(version, example)}
        inherited = (
            used.get(version.parent, frozenset()) if version.parent is not None else frozenset()
        )
        used[version.version] = inherited | own
    return used


def _may_have_used(version: VersionOrigin, example: WithdrawnExample) -> bool:
    if example.offset <= version.withdrawn_through:
        return False
    if example.batch_id == version.batch_id:
        return True
    return (
        example.run_started_at is not None
        and not example.run_rejected
        and example.run_started_at < version.run_started_at
    )
