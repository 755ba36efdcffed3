"""Programs that pip cannot install."""

import os
import shutil
from pathlib import Path

import pytest

_BUILT = Path(".ratchet/bin").absolute()
_WAYS = {
    "ollama": "with Go on this machine, run: make ollama (some minutes)",
    "kustomize": "with Go on this machine, run: make kustomize (some minutes)",
    "kube-score": "with Go on this machine, run: make kustomize (some minutes)",
}
_PACKAGED = "it comes with the operating system's packages"


def require_program(name: str) -> str:
    """Return the path of a program that pip cannot install.

    Skips the test when it is missing, or fails it if RATCHET_REQUIRE_PROGRAMS is set.
    """
    path = shutil.which(name) or shutil.which(name, path=str(_BUILT))
    if path is None:
        reason = f"{name} is not installed; {_WAYS.get(name, _PACKAGED)}"
        if os.environ.get("RATCHET_REQUIRE_PROGRAMS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
