"""The table of architectures in docs/bases.md is that of the tests."""

from tests.bases.architectures import ARCHITECTURES
from tests.bases.matrix import table, written


def test_the_page_has_the_tested_architectures() -> None:
    assert written() == table(), "run: python -m tests.bases.matrix"
    assert written().count("\n") == len(ARCHITECTURES) + 2
