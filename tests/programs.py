"""Programs that pip cannot bring."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of a program that pip cannot bring. Skips the test where it is not there, and fails it where it has to be."""
    path = shutil.which(name)
    if path is None:
        said = f"{name} is not installed; it comes with the operating system's packages"
        if os.environ.get("RATCHET_REQUIRE_PROGRAMS"):
            pytest.fail(said)
        pytest.skip(said)
    return path
