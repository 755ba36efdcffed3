"""Modules of the user's, with the names of Ratchet's packages or of its dependencies, are not
imported; where they would be, one line tells the user how to prevent it.
"""

import os
import subprocess
from pathlib import Path

import pytest

from ratchet.local_stack.processes import Ports, StackLayout, process_specs
from shared.python_command import module_command

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ("serving", "feedback", "dataset", "builder", "trainer", "registry")
SERVICES = ("feedback", "dataset", "trainer", "registry")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of a user: each of its modules leaves a file when it is imported."""
    for module in ("gguf.py", "yaml.py", "services/__init__.py", "shared/__init__.py"):
        path = tmp_path / module
        path.parent.mkdir(exist_ok=True)
        path.write_text("import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\n")
    return tmp_path


def executed(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*.ran")]


def run(
    command: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def environment_with(*python_path: Path) -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(map(str, (*python_path, ROOT)))}


@pytest.mark.parametrize("name", PROCESSES)
def test_stack_imports_nothing_of_the_users(name: str, folder: Path) -> None:
    """Each process of `ratchet up` imports all of its modules, then refuses its settings."""
    (spec,) = (
        spec
        for spec in process_specs(
            StackLayout(folder, folder, folder), Ports(), "127.0.0.1:9", log_level="nonsense"
        )
        if spec.name == name
    )
    result = run(spec.command, folder, environment_with() | spec.environment)
    assert result.returncode == 2, result.stderr
    assert "RATCHET_LOG_LEVEL" in result.stderr
    assert executed(folder) == []


def test_every_process_of_the_stack_is_tried(tmp_path: Path) -> None:
    specs = process_specs(StackLayout(tmp_path, tmp_path, tmp_path), Ports(), "127.0.0.1:9")
    assert tuple(spec.name for spec in specs) == PROCESSES


@pytest.mark.parametrize("name", SERVICES)
def test_service_refuses_a_foreign_package_shared(name: str, folder: Path) -> None:
    (folder / "services" / "__init__.py").unlink()
    result = run(module_command(f"services.{name}"), folder, environment_with(folder))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"`shared` is {folder}/shared/__init__.py, not Ratchet's in {ROOT}" in line
    assert executed(folder) == []


@pytest.mark.parametrize("package", ["services", "shared"])
def test_command_refuses_a_foreign_package(package: str, folder: Path) -> None:
    other = {"services": "shared", "shared": "services"}[package]
    (folder / other / "__init__.py").unlink()
    result = run(module_command("ratchet", "up"), folder, environment_with(folder))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: the package `{package}` is {folder}/{package}/__init__.py")
    assert "PYTHONPATH" in line
    assert executed(folder) == []


def test_folders_without_init_replace_nothing(folder: Path) -> None:
    for package in ("services", "shared"):
        (folder / package / "__init__.py").unlink()
    (folder / "yaml.py").unlink()
    result = run(module_command("ratchet", "models", "check"), folder, environment_with(folder))
    assert "no model file" in result.stderr
