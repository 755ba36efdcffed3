"""Version of the installed `ratchet` package; the only module that reads its metadata."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def ratchet_version() -> str:
    """Return the package version, or `unknown` in a source tree that is not installed."""
    try:
        return version("ratchet")
    except PackageNotFoundError:
        return "unknown"
