"""Exit status of a service's process, with one line on standard error that gives the reason."""

import sys
from collections.abc import Callable

from shared.errors import Misconfigured, RatchetError

CLEAN, FAILED, MISCONFIGURED = 0, 1, 2


def exit_status(service: str, run: Callable[[], None]) -> int:
    """Run a service to its end and return its exit status.

    0 after a clean stop, 2 when the configuration has to change first, 1 when the service could not
    continue. Other exceptions propagate: they are bugs, and need their traceback.
    """
    try:
        run()
    except Misconfigured as error:
        print(f"{service}: {error}", file=sys.stderr)
        return MISCONFIGURED
    except (RatchetError, OSError) as error:
        print(f"{service}: {error}; no offset of unfinished work was committed", file=sys.stderr)
        return FAILED
    return CLEAN
