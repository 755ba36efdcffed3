"""The manifests match the services' settings: variables, ports, probes, folders, files, durations
and addresses.
"""

from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.engine import make_url

from ratchet.local_stack.ports import free_port
from services.dataset.builder.settings import BuilderSettings
from services.dataset.settings import DatasetSettings
from services.feedback.settings import FeedbackSettings
from services.registry.api.authorization import PUBLIC_PATHS
from services.registry.settings import RegistrySettings
from services.trainer.settings import TrainerSettings
from shared.clock import SystemClock
from shared.config.settings import PREFIX, ServiceSettings, read_settings
from shared.http.health_server import serve_health
from shared.observability.health import Health
from tests.deploy.rendering import (
    EVERYTHING,
    OVERLAYS,
    WITH_SCRAM,
    Manifest,
    combination,
    of_kind,
    overlay,
    pods,
    ray_pods,
)

SETTINGS: dict[str, type[ServiceSettings]] = {
    "feedback": FeedbackSettings,
    "dataset": DatasetSettings,
    "builder": BuilderSettings,
    "trainer": TrainerSettings,
    "registry": RegistrySettings,
}
EXTERNAL_VARIABLES = {"HOME", "HF_HUB_OFFLINE", "POD_NAME", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"}
ALL = [*(pytest.param(overlay, name, id=name) for name in OVERLAYS)]
ALL += [
    pytest.param(combination, EVERYTHING, id="everything"),
    pytest.param(combination, WITH_SCRAM, id="with scram"),
]


@pytest.mark.parametrize(("render", "variant"), ALL)
@pytest.mark.parametrize("service", SETTINGS)
def test_every_variable_is_a_valid_setting(
    render: Any, variant: Any, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, own = variables(render(variant), service)
    settings_of = {
        name: {PREFIX + field.upper() for field in settings.model_fields}
        for name, settings in SETTINGS.items()
    }
    assert set(own) - settings_of[service] <= EXTERNAL_VARIABLES
    assert set(shared) <= set().union(*settings_of.values())
    assert len(shared) > 10
    assert len(own) >= 2
    for name, value in (shared | own).items():
        monkeypatch.setenv(name, value)
    settings = read_settings(SETTINGS[service])
    port = getattr(settings, f"{service}_port")
    assert [
        port_spec["containerPort"] for port_spec in container(render(variant), service)["ports"]
    ] == [port]
    assert of_kind(render(variant), "Service")[service]["spec"]["ports"][0]["port"] == port


@pytest.mark.parametrize("service", SETTINGS)
def test_containers_run_their_service(service: str) -> None:
    python, option, module = container(overlay("production"), service)["command"]
    assert (python, option) == ("python", "-m")
    assert find_spec(f"{module}.__main__") is not None


def test_probes_use_existing_endpoints(unused_health: str) -> None:
    probe_paths = {
        (service, kind): container(overlay("production"), service)[kind]["httpGet"]["path"]
        for service in SETTINGS
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert len(probe_paths) == 15
    for (service, kind), path in probe_paths.items():
        assert path == ("/readyz" if kind == "readinessProbe" else "/healthz")
        if service == "registry":
            assert path in PUBLIC_PATHS
        else:
            assert httpx.get(unused_health + path).status_code != 404
    assert httpx.get(unused_health + "/elsewhere").status_code == 404


@pytest.fixture
def unused_health() -> Any:
    port = free_port()
    stop = serve_health(Health(SystemClock()), CollectorRegistry(), "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    stop()


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_grace_period_covers_a_checkpoint(name: str) -> None:
    shared, _ = variables(overlay(name), "trainer")
    assert (
        pods(overlay(name))["trainer"]["spec"]["terminationGracePeriodSeconds"]
        >= float(shared["RATCHET_STOP_SECONDS"]) + 30
    )


@pytest.mark.parametrize(("render", "variant"), ALL)
@pytest.mark.parametrize("service", SETTINGS)
def test_folders_and_files_are_mounted(render: Any, variant: Any, service: str) -> None:
    """Written folders are on writable volumes; files are items of the mounted volume."""
    shared, own = variables(render(variant), service)
    mounts = {
        mount["mountPath"]: mount for mount in container(render(variant), service)["volumeMounts"]
    }
    volumes = {
        volume["name"]: volume for volume in pods(render(variant))[service]["spec"]["volumes"]
    }
    own_fields = {PREFIX + field.upper() for field in SETTINGS[service].model_fields}
    written = {"RATCHET_DATA", "RATCHET_WORK", "RATCHET_MERGED"} & own_fields
    written |= {"RATCHET_OBJECT_STORE"} if service != "feedback" else set()
    for name in written:
        assert not mounts[(shared | own)[name].removesuffix("/$(POD_NAME)")].get("readOnly"), name
    assert mounts[shared["RATCHET_MODELS"]]["readOnly"]
    if service in ("trainer", "registry"):
        assert mounts[shared["RATCHET_BASES"]]["readOnly"]
    files = {
        name: value
        for name, value in (shared | own).items()
        if value.startswith("/etc/") and name != "RATCHET_MODELS"
    }
    assert len(files) >= 2
    for value in files.values():
        path = PurePosixPath(value)
        assert mounts[str(path.parent)]["readOnly"]
        secret = volumes[mounts[str(path.parent)]["name"]]["secret"]
        assert {item["key"] for item in secret.get("items", [{"key": path.name}])} >= {path.name}


def test_threads_match_the_cpu_limits() -> None:
    variables_by_name = {
        env["name"]: env for env in container(overlay("production"), "trainer")["env"]
    }
    assert variables_by_name["RATCHET_THREADS"]["valueFrom"] == {
        "resourceFieldRef": {"resource": "limits.cpu"}
    }
    for name in OVERLAYS:
        shared, _ = variables(overlay(name), "registry")
        assert shared["RATCHET_OLLAMA_THREADS"] == str(
            pods(overlay(name))["ollama"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
        )


def test_a_trainer_on_ray_matches_its_worker() -> None:
    """Including the component `gpu`, whose GPU then belongs to the worker."""
    manifests = combination(("gpu", "network-policies", "ray"))
    _, own = variables(manifests, "trainer")
    (cluster,) = of_kind(manifests, "RayCluster").values()
    head, worker = (
        ray_pods(cluster)[name]["spec"]["containers"][0] for name in ("ray head", "ray training")
    )
    address = urlsplit(own["RATCHET_RAY_ADDRESS"])
    assert (address.scheme, address.hostname) == ("ray", f"{cluster['metadata']['name']}-head-svc")
    assert {"name": "client", "containerPort": address.port} in head["ports"]
    limits = worker["resources"]["limits"]
    assert (own["RATCHET_RAY_GPUS"], own["RATCHET_THREADS"]) == (
        limits["nvidia.com/gpu"],
        limits["cpu"],
    )
    assert "nvidia.com/gpu" not in container(manifests, "trainer")["resources"]["limits"]
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", (
        "runs would be scheduled on the head"
    )
    claims = [_claims(pods(manifests)[name]) for name in ("trainer", "ray training")]
    assert claims[1] == {path: claims[0][path] for path in ("/data/bases", "/data/trainer")}
    assert "volumeClaimTemplates" not in of_kind(manifests, "StatefulSet")["trainer"]["spec"]
    names = [env["name"] for env in container(manifests, "trainer")["env"]]
    assert names.index("POD_NAME") < names.index("RATCHET_WORK"), (
        "a variable can only refer to earlier ones"
    )


def _claims(pod: Manifest) -> dict[str, str]:
    """Return the claims of a pod, by mount path."""
    claims = {
        it["name"]: it["persistentVolumeClaim"]["claimName"]
        for it in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in it
    }
    return {
        it["mountPath"]: claims[it["name"]]
        for it in pod["spec"]["containers"][0]["volumeMounts"]
        if it["name"] in claims
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_dependencies_have_the_configured_addresses(name: str) -> None:
    shared, _ = variables(overlay(name), "registry")
    ports = {
        (service, str(port["port"]))
        for service, item in of_kind(overlay(name), "Service").items()
        for port in item["spec"]["ports"]
    }
    database, ollama = make_url(shared["RATCHET_DATABASE"]), urlsplit(shared["RATCHET_OLLAMA"])
    assert database.password is None
    assert {(database.host, str(database.port)), (ollama.hostname, str(ollama.port))} <= ports
    server = pods(overlay(name))["postgres"]["spec"]["containers"][0]
    environment = {env["name"]: env["value"] for env in server["env"]}
    assert (database.username, database.database) == (
        environment["POSTGRES_USER"],
        environment["POSTGRES_DB"],
    )
    (kafka,) = of_kind(overlay(name), "Kafka").values()
    listeners = {
        f"{kafka['metadata']['name']}-kafka-bootstrap:{item['port']}"
        for item in kafka["spec"]["kafka"]["listeners"]
    }
    assert listeners == {shared["RATCHET_BOOTSTRAP_SERVERS"]}


def container(manifests: tuple[Manifest, ...], service: str) -> Manifest:
    (spec,) = pods(manifests)[service]["spec"]["containers"]
    assert isinstance(spec, dict)
    return spec


def variables(
    manifests: tuple[Manifest, ...], service: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the common variables and a service's own. A variable from a resource limit gets the
    smallest possible value.
    """
    spec = container(manifests, service)
    (source,) = spec["envFrom"]
    shared: dict[str, str] = of_kind(manifests, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    assert all(
        env["valueFrom"].keys() <= {"resourceFieldRef", "fieldRef"}
        for env in spec["env"]
        if "valueFrom" in env
    )
    return shared, {env["name"]: env.get("value", "1") for env in spec["env"]}
