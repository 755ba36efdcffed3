"""compose.yaml, checked against the source tree without a container engine: its format, and
everything that it names.
"""

import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from ratchet.local_stack.processes import Ports
from shared.config.model_file import ModelFile
from tests.docker.dockerfile import environment_of, lineage, stages
from tests.docker.settings import VARIABLES_BY_MODULE

FILE = Path("compose.yaml")
OWN_SERVICES = ("topics", "bases", "feedback", "dataset", "builder", "trainer", "registry")
EXTERNAL_SERVICES = ("kafka", "ollama", "prometheus", "grafana")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield source, target and writability of each mount."""
    for mount in service.get("volumes", ()):
        source, target, *options = mount.split(":")
        yield source, target, "ro" not in options


def test_the_file_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    assert set(PyCompose.from_json(json.dumps(compose)).service_names()) == {
        *OWN_SERVICES,
        *EXTERNAL_SERVICES,
    }
    wrong = compose | {
        "services": compose["services"] | {"kafka": {"image": "a", "port": ["9092:9092"]}}
    }
    with pytest.raises(ValueError, match="port"):
        PyCompose.from_json(json.dumps(wrong))


def test_images_have_exact_versions_and_existing_stages(
    compose: dict[str, Any],
) -> None:
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    dockerfile = stages(Path("Dockerfile"))
    names = {"slim": "ratchet", "trainer": "ratchet-trainer", "bases": "ratchet-bases"}
    for name in OWN_SERVICES:
        service = compose["services"][name]
        assert service["image"] == f"{names[service['build']['target']]}:{version}"
        assert service["build"]["target"] in dockerfile
    for name in EXTERNAL_SERVICES:
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", compose["services"][name]["image"])


def test_commands_run_existing_modules(compose: dict[str, Any]) -> None:
    commands = {
        name: compose["services"][name]["command"]
        for name in OWN_SERVICES
        if "command" in compose["services"][name]
    }
    assert commands.pop("topics") == ["ratchet", "topics", "apply"]
    assert set(commands) == {"feedback", "dataset", "builder", "trainer", "registry"}
    for command in commands.values():
        assert command[:2] == ["python", "-m"]
        assert find_spec(f"{command[2]}.__main__") is not None
    assert (
        importlib.import_module("ratchet.local_stack.bases").SMOLLM2
        in Path("deploy/compose/support.yaml").read_text()
    )


def test_every_variable_is_read_by_a_service(compose: dict[str, Any]) -> None:
    read = {
        name: VARIABLES_BY_MODULE[f"services.{name}"]
        for name in ("feedback", "dataset", "builder", "trainer", "registry")
    }
    everywhere = frozenset().union(*read.values())
    for name in OWN_SERVICES:
        variables = set(compose["services"][name].get("environment", {}))
        assert variables <= everywhere
        assert variables - set(compose["x-settings"]) <= read.get(name, frozenset())
    assert "RATCHET_BOOTSTRAP_SERVERS" in compose["services"]["feedback"]["environment"]


def test_ports_are_bound_to_loopback_and_match_listeners(
    compose: dict[str, Any],
) -> None:
    ports = {
        name: port
        for name, service in compose["services"].items()
        for port in service.get("ports", ())
    }
    own = {
        name: getattr(Ports(), name)
        for name in ("kafka", "feedback", "dataset", "builder", "trainer", "registry")
    }
    external = {"ollama": 11434, "prometheus": 9090, "grafana": 3000}
    assert ports == {name: f"127.0.0.1:{port}:{port}" for name, port in (own | external).items()}
    exposed = {
        port
        for stage in stages(Path("Dockerfile")).values()
        for line in stage.all("EXPOSE")
        for port in line.split()
    }
    assert exposed == {
        str(own[name]) for name in ("feedback", "dataset", "builder", "trainer", "registry")
    }
    for name, port in own.items():
        assert (
            f":{port}" in str(compose["services"][name]["healthcheck"]["test"]) or name == "kafka"
        )
    listeners = compose["services"]["kafka"]["environment"]["KAFKA_LISTENERS"]
    assert compose["x-settings"]["RATCHET_BOOTSTRAP_SERVERS"].split(":")[1] in listeners
    assert f"OUTSIDE://:{own['kafka']}" in listeners


def test_mounted_paths_exist(compose: dict[str, Any]) -> None:
    sources = {
        source for service in compose["services"].values() for source, _, _ in mounts(service)
    }
    paths = {source.removeprefix("./") for source in sources if source.startswith(".")}
    assert [path for path in paths if not Path(path).exists()] == []
    assert sources - {f"./{path}" for path in paths} == set(compose["volumes"])


def test_containers_can_write_only_their_own_data(compose: dict[str, Any]) -> None:
    dockerfile = stages(Path("Dockerfile"))
    created = {
        word
        for stage in lineage(dockerfile, "slim")
        for line in stage.all("RUN")
        for word in line.split()
        if word.startswith("/data")
    }
    variables = environment_of(dockerfile, "slim")
    writes = {
        "feedback": ("RATCHET_DATA",),
        "dataset": ("RATCHET_DATA", "RATCHET_OBJECT_STORE"),
        "builder": ("RATCHET_OBJECT_STORE",),
        "trainer": ("RATCHET_WORK", "RATCHET_OBJECT_STORE"),
        "registry": ("RATCHET_MERGED", "RATCHET_OBJECT_STORE"),
        "bases": ("RATCHET_BASES",),
    }
    for name in OWN_SERVICES:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        writable = {target for _, target, can_write in mounts(service) if can_write}
        # A new volume gets the owner of the image's folder, or root without such a folder.
        assert writable <= created
        for variable in writes.get(name, ()):
            target = Path(variables[variable])
            assert {target, *target.parents} & {
                Path(each) for each in writable | set(service["tmpfs"])
            }, (name, variable)


def test_services_wait_for_their_dependencies(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("feedback", "dataset", "builder", "trainer", "registry"):
        assert services[name]["depends_on"]["topics"] == {
            "condition": "service_completed_successfully"
        }
    for name, service in services.items():
        for dependency, options in service.get("depends_on", {}).items():
            assert options["condition"] == (
                "service_healthy"
                if "healthcheck" in services[dependency]
                else "service_completed_successfully"
            ), name
        assert ("healthcheck" in service) == (name not in ("topics", "bases"))


def test_prometheus_scrapes_every_service(compose: dict[str, Any]) -> None:
    config = yaml.safe_load(Path("deploy/prometheus/compose.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "ratchet"
    targets = {group["labels"]["service"]: group["targets"] for group in job["static_configs"]}
    assert targets == {
        name: [f"{name}:{getattr(Ports(), name)}"]
        for name in ("feedback", "dataset", "builder", "trainer", "registry")
    }
    (rules,) = config["rule_files"]
    assert any(
        Path(rules).parent == Path(target)
        for _, target, _ in mounts(compose["services"]["prometheus"])
    )


def test_the_model_differs_only_in_its_ollama_target() -> None:
    original, deployed = (
        yaml.safe_load(Path(path).read_text())
        for path in ("models/support.yaml", "deploy/compose/support.yaml")
    )
    assert deployed.pop("deploy") == [{"kind": "ollama"}]
    original.pop("deploy")
    assert deployed == original
    assert ModelFile.model_validate(deployed).model == "support"
