"""The command line."""

import logging
import sys

from rich.text import Text

from ratchet import console
from ratchet.cli.commands import app
from shared.errors import RatchetError


def main() -> None:
    """Run a command; an error that Ratchet knows is one line that says what to do, with exit status
    1.
    """
    # Kafka's client logs what it then raises; the error says it once, with what to do.
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
