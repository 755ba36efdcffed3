"""The command line."""

import sys

from ratchet import console
from ratchet.commands import app
from shared.errors import RatchetError


def main() -> None:
    """Run a command; an error that Ratchet knows is one line that says what to do, with exit status 1."""
    try:
        app()
    except RatchetError as error:
        console.err.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
