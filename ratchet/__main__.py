"""Entry point of the command line tool."""

import logging
import sys

from ratchet.package_origin import foreign_package


def main() -> None:
    """Run a command. A RatchetError becomes a one-line message and exit status 1."""
    if message := foreign_package():
        sys.exit(f"error: {message}")
    _run()


def _run() -> None:
    from rich.text import Text

    from ratchet import console
    from ratchet.cli.commands import app
    from shared.errors import RatchetError

    # aiokafka logs errors that it also raises; the message is printed once, with advice.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        app()
    except RatchetError as error:
        console.err.print(
            Text.assemble(("error: ", "bold red"), console.escape_controls(str(error))),
            soft_wrap=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
