"""The four services, in the order of the flow: feedback, dataset, trainer, registry. None imports
another.

Raises ImportError, which `python -m services.<name>` prints as one line, if another package than
Ratchet's would be imported as `shared`.
"""

from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_SHARED = find_spec("shared")

if _SHARED is None or Path(_SHARED.origin or "").resolve().parent.parent != _ROOT:
    raise ImportError(
        f"the package `shared` is {_SHARED.origin if _SHARED else 'missing'}, not Ratchet's in "
        f"{_ROOT}: start Python with -P, and remove the other package's folder from PYTHONPATH",
        name=__name__,
    )
