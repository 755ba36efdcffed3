"""Results of an environment check, one row per item, each with advice where action is needed."""

from collections.abc import Iterable
from typing import Literal

from shared.events import FrozenModel

CheckState = Literal["ok", "warning", "problem"]


class Check(FrozenModel):
    """One row of an environment check.

    `advice` is empty when no action is needed; with a `problem` nothing can run.
    """

    name: str
    state: CheckState
    found: str
    advice: str = ""


def has_problem(checks: Iterable[Check]) -> bool:
    """Return whether any row has the state `problem`."""
    return any(check.state == "problem" for check in checks)
