"""How a service's process ends: its exit status, and one line on standard error that says why."""

import sys
from collections.abc import Callable

from shared.errors import Misconfigured, RatchetError

CLEAN, FAILED, MISCONFIGURED = 0, 1, 2


def exit_status(service: str, run: Callable[[], None]) -> int:
    """Run a service to its end: 0 after a clean stop, 2 when a person has to change something
    first, 1 when it could not go on.

    Other errors leave as they are: they are faults of ours, and their trace is what is needed.
    """
    try:
        run()
    except Misconfigured as error:
        print(f"{service}: {error}", file=sys.stderr)
        return MISCONFIGURED
    except (RatchetError, OSError) as error:
        print(f"{service}: {error}; nothing was committed that was not done", file=sys.stderr)
        return FAILED
    return CLEAN
