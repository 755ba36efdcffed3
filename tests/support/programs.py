"""Programs that pip cannot bring."""

import os
import shutil
from pathlib import Path

import pytest

_BUILT = Path(".ratchet/bin").absolute()
_WAYS = {
    "ollama": "with Go on this machine, type: make ollama (some minutes)",
    "kustomize": "with Go on this machine, type: make kustomize (some minutes)",
    "kube-score": "with Go on this machine, type: make kustomize (some minutes)",
}
_PACKAGED = "it comes with the operating system's packages"


def require_program(name: str) -> str:
    """The path of a program that pip cannot bring. Skips the test where it is not there, and fails
    it where it has to be.
    """
    path = shutil.which(name) or shutil.which(name, path=str(_BUILT))
    if path is None:
        said = f"{name} is not installed; {_WAYS.get(name, _PACKAGED)}"
        if os.environ.get("RATCHET_REQUIRE_PROGRAMS"):
            pytest.fail(said)
        pytest.skip(said)
    return path
