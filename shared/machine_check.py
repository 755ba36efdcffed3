"""What a check of a machine found: rows that say what is so, and what to do where it is not as it
should be.
"""

from collections.abc import Iterable
from typing import Literal

from shared.events import FrozenModel

CheckState = Literal["ok", "warning", "problem"]


class Check(FrozenModel):
    """One row. `advice` is empty where there is nothing to do; a problem is what nothing can run
    with.
    """

    name: str
    state: CheckState
    found: str
    advice: str = ""


def has_problem(checks: Iterable[Check]) -> bool:
    return any(check.state == "problem" for check in checks)
