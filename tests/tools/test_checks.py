"""Each check of `make lint` reports the faults that it is written for."""

import ast
from pathlib import Path

import pytest

from tools import language, structure
from tools.commits import subject_faults


@pytest.mark.parametrize(
    "subject", ["Add a retry policy", "Embed the broker", "Rename `judge` to `decide`"]
)
def test_imperative_subject_passes(subject: str) -> None:
    assert list(subject_faults(iter([subject]))) == []


@pytest.mark.parametrize(
    "subject",
    [
        "The demo is faster",
        "Tests: rename a file",
        "Added a policy",
        "Adding a policy",
        "add a policy",
        "Add " + "a" * 70,
    ],
)
def test_other_subject_is_a_fault(subject: str) -> None:
    assert len(list(subject_faults(iter([subject])))) == 1


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that the checks treat as the repository."""
    monkeypatch.chdir(tmp_path)
    for module in (language, structure):
        for name in ("tracked", "modules"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, _listing(tmp_path, name))
    return tmp_path


def _listing(root: Path, name: str) -> object:
    def tracked(patterns: object) -> list[Path]:
        return sorted(path.relative_to(root) for path in root.rglob("*.py"))

    def modules(folders: object) -> list[tuple[Path, ast.Module]]:
        return [(path, ast.parse(path.read_text())) for path in tracked(folders)]

    return tracked if name == "tracked" else modules


def test_docstring_that_starts_with_a_clause_is_a_fault(repository: Path) -> None:
    (repository / "a.py").write_text('"""What it is."""\n\ndef f():\n    """Return it."""\n')
    (fault,) = language.docstring_faults()
    assert "'What'" in fault


def test_long_test_name_is_a_fault(repository: Path) -> None:
    longest = "test_" + "a" * (language.MAX_TEST_NAME - 5)
    (repository / "a.py").write_text(f"def {longest}(): ...\n\nasync def {longest}b(): ...\n")
    (fault,) = language.test_name_faults()
    assert "61 characters" in fault


def test_idiom_may_become_rarer_but_not_more_frequent(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "a.py").write_text("# whoever asks, whoever reads\n")
    idioms = repository / "idioms.txt"
    monkeypatch.setattr(language, "IDIOMS", idioms)
    for allowed, faults in ((1, 1), (2, 0), (3, 1)):
        idioms.write_text(f"{allowed}\twhoever\n")
        assert len(list(language.idiom_faults())) == faults, allowed
    language.lower()
    assert idioms.read_text() == "2\twhoever\n"


def test_class_of_two_packages_and_heap_of_modules_are_faults(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure, "SHARED_NAMES", {})
    for number in range(structure.MAX_MODULES + 1):
        (repository / f"m{number}.py").write_text("class Answer: ...\n" if number < 2 else "")
    (class_fault,) = structure.class_faults()
    assert "Answer" in class_fault
    (folder_fault,) = structure.folder_faults()
    assert "17 modules" in folder_fault
