"""Name and version of the installed distribution; the only module that reads its metadata."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "ratchet-finetuning"
"""On PyPI, the name `ratchet` belongs to another project."""


@cache
def ratchet_version() -> str:
    """Return the distribution's version, or `unknown` in a source tree that is not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def install_command(extra: str) -> str:
    """Return the command that installs an extra. The distribution is not published yet."""
    return f"pip install '.[{extra}]' in a checkout of Ratchet"
