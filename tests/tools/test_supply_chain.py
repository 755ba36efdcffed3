"""Licences and bill of materials of what is installed."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.utils import canonicalize_name

from shared.version import DISTRIBUTION

BIN = Path(sys.executable).parent
SETTINGS = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["pip-licenses"]


def licences(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "pip-licenses"), "--summary", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_licence_is_allowed() -> None:
    checked = licences()
    assert (checked.returncode, checked.stderr) == (0, "")


def test_licence_that_is_not_allowed_fails() -> None:
    """`python-stdnum` is installed everywhere, and allowed by name alone."""
    reviewed = [name for name in SETTINGS["ignore-packages"] if name != "python-stdnum"]
    checked = licences("--ignore-packages", *reviewed)
    assert checked.returncode != 0
    assert "python-stdnum" in checked.stderr


def test_every_pinned_version_has_hashes() -> None:
    versions = Path("constraints.txt").read_text().splitlines()
    requirements = Path("constraints-hashes.txt").read_text().replace("\\\n", "").splitlines()
    assert [line.partition("--hash")[0].strip() for line in requirements] == versions
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in requirements)


def test_docs_give_a_reason_for_each_package_allowed_by_name() -> None:
    rows = re.findall(r"^\| (`.*) \|.*\|.*\|$", Path("docs/security.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    for name in SETTINGS["ignore-packages"]:
        assert name in named or ("nvidia-*" in named and name.startswith("nvidia-"))


def test_bill_of_materials_is_of_this_environment(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    command = [str(BIN / "cyclonedx-py"), "environment", "--pyproject", "pyproject.toml"]
    command += ["--output-reproducible", "--output-format", "JSON", "--output-file", str(file)]
    subprocess.run([*command, sys.executable], check=True, capture_output=True)
    bill = json.loads(file.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == DISTRIBUTION
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    for name in ("aiokafka", "pydantic", "torch", "sqlalchemy"):
        assert listed[canonicalize_name(name)] == version(name)
