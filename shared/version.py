"""Which Ratchet this is: the one place where the installed package is asked."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def ratchet_version() -> str:
    """The version as pip knows it; `unknown` in a tree that is not installed."""
    try:
        return version("ratchet")
    except PackageNotFoundError:
        return "unknown"
