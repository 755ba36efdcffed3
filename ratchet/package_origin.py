"""Check that Ratchet's packages are imported from one place. Imports the standard library only: it
runs before any of them.
"""

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("services", "shared")


def foreign_package() -> str | None:
    """Return a message about the first package that another project's would replace, None if all
    are Ratchet's. Imports none of them.
    """
    root = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None:
            return f"Ratchet's package `{name}` is missing in {root}; install Ratchet again"
        if Path(spec.origin or "").resolve().parent.parent != root:
            return (
                f"the package `{name}` is {spec.origin or 'a folder without __init__.py'}, not "
                f"Ratchet's in {root}: remove the other package's folder from PYTHONPATH, and run "
                "the command `ratchet` rather than `python -m ratchet`"
            )
    return None
