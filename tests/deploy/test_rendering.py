"""Every overlay and every component renders; every file is used; generated files are up to date."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ratchet.manifests import generated_files
from shared.config.models import load_models
from shared.version import ratchet_version
from tests.deploy.rendering import (
    COMBINATIONS,
    COMPONENTS,
    DEPLOY,
    EVERYTHING,
    K8S,
    MODELS,
    OPTIONAL,
    OVERLAYS,
    Manifest,
    combination,
    of_kind,
    overlay,
    pods,
)

SERVICES = ("feedback", "dataset", "builder", "trainer", "registry")


def test_all_overlays_and_components_are_rendered() -> None:
    assert OVERLAYS == ("dev", "production")
    assert len(COMPONENTS) == 17
    assert len(COMBINATIONS) == len(COMPONENTS) + 3


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_renders_the_services_in_one_namespace(name: str) -> None:
    manifests = overlay(name)
    assert {*SERVICES, "ollama", "postgres"} <= set(pods(manifests))
    assert {
        manifest["metadata"].get("namespace")
        for manifest in manifests
        if manifest["kind"] != "Namespace"
    } == {"ratchet"}
    _each_once(manifests)


@pytest.mark.parametrize(
    "names",
    COMBINATIONS,
    ids=lambda names: "+".join(names) if len(names) < 3 else f"{len(names)} components",
)
def test_a_combination_renders(names: tuple[str, ...]) -> None:
    manifests = combination(names)
    assert set(SERVICES) <= set(pods(manifests))
    _each_once(manifests)


def test_overlays_use_every_mandatory_component() -> None:
    used = {
        Path(name).name
        for overlay_name in OVERLAYS
        for name in _read(K8S / "overlays" / overlay_name)["components"]
    }
    assert used - {"models"} == set(COMPONENTS) - set(OPTIONAL)


def test_every_file_is_referenced() -> None:
    folders = [
        K8S / "base",
        *(K8S / "components" / name for name in COMPONENTS),
        *(K8S / "overlays" / name for name in OVERLAYS),
    ]
    named = {path.resolve() for folder in folders for path in _named(folder)}
    existing = {path.resolve() for path in K8S.rglob("*") if path.is_file()}
    assert existing - named == set()
    assert named - existing == {
        MODELS.resolve(),
        (DEPLOY / "grafana").resolve(),
    }  # outside deploy/k8s
    assert len(existing) > 60


def test_no_manifest_is_commented_out() -> None:
    """A comment that is valid YAML without its `#` is a disabled part of a manifest."""
    paths = sorted(K8S.rglob("*.yaml"))
    assert len(paths) > 60
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.match(r"\s*#\s*(- |[\w./-]+:( \S+)?$)", line), f"{path}: {line}"


@pytest.mark.parametrize(
    "path", generated_files(DEPLOY), ids=lambda path: path.name + " of " + path.parent.name
)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated_files(DEPLOY)[path], "run: make manifests"


def test_images_have_exact_versions() -> None:
    images = {
        name: [it["image"] for it in pod["spec"]["containers"]]
        for name in OVERLAYS
        for name, pod in pods(overlay(name)).items()
    }
    assert {name: images[name] for name in (*SERVICES, "bases")} == {
        "feedback": [f"ratchet:{ratchet_version()}"],
        "dataset": [f"ratchet:{ratchet_version()}"],
        "builder": [f"ratchet:{ratchet_version()}"],
        "trainer": [f"ratchet-trainer:{ratchet_version()}"],
        "registry": [f"ratchet:{ratchet_version()}"],
        "bases": [f"ratchet-bases:{ratchet_version()}"],
    }
    for image in (*images["ollama"], *images["postgres"]):
        tag = image.partition(":")[2]
        assert tag not in ("", "latest"), image


@pytest.mark.parametrize("name", OVERLAYS)
def test_cluster_models_differ_only_in_their_target(name: str, tmp_path: Path) -> None:
    mounted = _mounted_models(overlay(name), tmp_path)
    here, there = load_models(MODELS), load_models(mounted)
    assert here.files.keys() == there.files.keys()
    for model, file in here.files.items():
        deployed = there.get(model)
        assert deployed.model_dump(exclude={"deploy"}) == file.model_dump(exclude={"deploy"})
        assert [target.kind for target in deployed.deploy] == ["ollama"]
        assert (
            there.golden(model),
            there.regression_set(model),
            there.regression_prompts(model),
        ) == (
            here.golden(model),
            here.regression_set(model),
            here.regression_prompts(model),
        )
        for lane in file.lanes:
            assert there.rehearsal(model, lane) == here.rehearsal(model, lane)


def test_every_file_of_the_models_is_mounted() -> None:
    (config,) = [
        config_map
        for name, config_map in of_kind(combination(()), "ConfigMap").items()
        if name.startswith("ratchet-models")
    ]
    files = [
        path for path in MODELS.rglob("*") if path.is_file() and path.name != "kustomization.yml"
    ]
    assert len(config["data"]) == len(files) > 4


def test_config_maps_fit_the_size_limit() -> None:
    """A client-side apply stores a copy in an annotation of at most 256 KiB."""
    sizes = {
        name: len(yaml.safe_dump(config_map))
        for name, config_map in of_kind(combination(EVERYTHING), "ConfigMap").items()
    }
    assert len(sizes) >= 3
    assert {name: size for name, size in sizes.items() if size > 250_000} == {}


def _mounted_models(manifests: tuple[Manifest, ...], folder: Path) -> Path:
    """Write the folder of models that every service mounts."""
    volumes = [
        volume["configMap"]
        for name in SERVICES
        for volume in pods(manifests)[name]["spec"]["volumes"]
        if volume["name"] == "models"
    ]
    assert len(volumes) == len(SERVICES)
    assert all(volume == volumes[0] for volume in volumes)
    data = of_kind(manifests, "ConfigMap")[volumes[0]["name"]]["data"]
    assert {item["key"] for item in volumes[0]["items"]} == data.keys()
    for item in volumes[0]["items"]:
        path = folder / item["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(data[item["key"]], encoding="utf-8")
    return folder


def _named(folder: Path) -> Iterator[Path]:
    """Yield the files that a kustomization names, itself, and folders outside deploy/k8s."""
    yield folder / "kustomization.yaml"
    spec = _read(folder)
    generated = [
        file
        for config in spec.get("configMapGenerator", [])
        for file in (*config.get("files", []), *config.get("envs", []))
    ]
    patches = [patch["path"] for patch in spec.get("patches", []) if "path" in patch]
    for name in (*spec.get("resources", []), *spec.get("components", []), *generated, *patches):
        path = (folder / name).resolve()
        if path.is_file() or K8S.resolve() not in path.parents:
            yield path


def _read(folder: Path) -> Manifest:
    kustomization: Manifest = yaml.safe_load(
        (folder / "kustomization.yaml").read_text(encoding="utf-8")
    )
    return kustomization


def _each_once(manifests: tuple[Manifest, ...]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names)) > 10
