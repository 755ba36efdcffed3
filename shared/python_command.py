"""Command lines of Python child processes."""

import sys


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module with this interpreter.

    `-P` keeps the current folder off the module search path: it is the user's, and a `gguf.py` or
    a package `services` in it must not replace a dependency or Ratchet's own code.
    """
    return (sys.executable, "-P", "-m", module, *arguments)
