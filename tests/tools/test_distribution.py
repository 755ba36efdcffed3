"""The distribution: complete, with metadata that an index accepts, and recommended by its name."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from shared.version import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[2]
PACKAGES = ("services", "shared", "ratchet")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(folders: Sequence[str] = ()) -> list[str]:
    return run("git", "ls-files", "-z", "--", *folders).split("\0")[:-1]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    program = Path(sys.executable).with_name("uv")
    run(program, "build", "--quiet", "--no-build-isolation", "--out-dir", folder)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def test_an_index_accepts_the_distribution(archives: tuple[Path, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)


def test_wheel_has_every_file_of_its_packages(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
    files = {name for name in names if name.startswith(tuple(f"{name}/" for name in PACKAGES))}
    assert files == set(tracked(PACKAGES))
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    (licences,) = {name.partition("/")[0] for name in names - files}
    assert f"{licences}/licenses/LICENSE" in names


def test_source_distribution_builds_what_the_checkout_does(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {*tracked(PACKAGES), "pyproject.toml", "README.md", "LICENSE"} <= names


def test_metadata_name_the_project(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Metadata.from_email(wheel.read(path))
    assert metadata.name == DISTRIBUTION == PROJECT["name"] != "ratchet"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert "Typing :: Typed" in (metadata.classifiers or [])
    assert PROJECT["scripts"] == {"ratchet": "ratchet.__main__:main"}


def test_extras_of_install_commands_exist() -> None:
    commands = [
        match[1]
        for name in tracked(("ratchet", "services", "shared", "docs", "README.md"))
        if name.endswith((".py", ".md"))
        for match in re.finditer(
            r"(?:install_command\(['\"]|pip install '\.\[)(\w+)", (ROOT / name).read_text()
        )
    ]
    assert len(commands) > 8
    assert set(commands) <= set(PROJECT["optional-dependencies"])
    assert install_command("ray").startswith("pip install '.[ray]'")


def test_no_text_recommends_the_package_of_another_project() -> None:
    foreign = re.compile(r"pip install(?:\s+-\S+)*\s+['\"]?ratchet(?![\w-])")
    assert foreign.search("pip install --upgrade 'ratchet[ray]'")
    texts = {
        name: (ROOT / name).read_text(encoding="utf-8", errors="ignore")
        for name in tracked()
        if not name.startswith(("tests/", "findings/"))
    }
    assert {name for name, text in texts.items() if foreign.search(text)} == set()
