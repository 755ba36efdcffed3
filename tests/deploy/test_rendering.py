"""Every overlay and every component renders; nothing lies about unused; what is made from other
files is as it would be made now.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ratchet.manifests import generated_files
from shared.config.model_file import load_models
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

SERVICES = ("feedback", "dataset", "trainer", "registry")


def test_all_overlays_and_components_are_rendered() -> None:
    assert OVERLAYS == ("dev", "production")
    assert len(COMPONENTS) == 16
    assert len(COMBINATIONS) == len(COMPONENTS) + 3


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_renders_the_services_in_one_namespace(name: str) -> None:
    found = overlay(name)
    assert {*SERVICES, "ollama", "postgres"} <= set(pods(found))
    assert {
        manifest["metadata"].get("namespace")
        for manifest in found
        if manifest["kind"] != "Namespace"
    } == {"ratchet"}
    _each_once(found)


@pytest.mark.parametrize(
    "names",
    COMBINATIONS,
    ids=lambda names: "+".join(names) if len(names) < 3 else f"{len(names)} components",
)
def test_a_combination_renders(names: tuple[str, ...]) -> None:
    found = combination(names)
    assert set(SERVICES) <= set(pods(found))
    _each_once(found)


def test_overlays_use_every_mandatory_component() -> None:
    taken = {
        Path(name).name
        for overlay_name in OVERLAYS
        for name in _read(K8S / "overlays" / overlay_name)["components"]
    }
    assert taken - {"models"} == set(COMPONENTS) - set(OPTIONAL)


def test_every_file_is_referenced() -> None:
    folders = [
        K8S / "base",
        *(K8S / "components" / name for name in COMPONENTS),
        *(K8S / "overlays" / name for name in OVERLAYS),
    ]
    named = {path.resolve() for folder in folders for path in _named(folder)}
    lying = {path.resolve() for path in K8S.rglob("*") if path.is_file()}
    assert lying - named == set()
    assert named - lying == {MODELS.resolve(), (DEPLOY / "grafana").resolve()}  # folders of others
    assert len(lying) > 60


def test_no_manifest_is_commented_out() -> None:
    """A line that would be YAML without its `#` is a manifest that somebody switched off."""
    paths = sorted(K8S.rglob("*.yaml"))
    assert len(paths) > 60
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.match(r"\s*#\s*(- |[\w./-]+:( \S+)?$)", line), f"{path}: {line}"


@pytest.mark.parametrize(
    "path", generated_files(DEPLOY), ids=lambda path: path.name + " of " + path.parent.name
)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated_files(DEPLOY)[path], "type: make manifests"


def test_images_have_exact_versions() -> None:
    images = {
        name: [it["image"] for it in pod["spec"]["containers"]]
        for name in OVERLAYS
        for name, pod in pods(overlay(name)).items()
    }
    assert {name: images[name] for name in (*SERVICES, "bases")} == {
        "feedback": [f"ratchet:{ratchet_version()}"],
        "dataset": [f"ratchet:{ratchet_version()}"],
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
        found = there.get(model)
        assert found.model_dump(exclude={"deploy"}) == file.model_dump(exclude={"deploy"})
        assert [target.kind for target in found.deploy] == ["ollama"]
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
        found
        for name, found in of_kind(combination(()), "ConfigMap").items()
        if name.startswith("ratchet-models")
    ]
    files = [
        path for path in MODELS.rglob("*") if path.is_file() and path.name != "kustomization.yml"
    ]
    assert len(config["data"]) == len(files) > 4


def test_config_maps_fit_the_size_limit() -> None:
    """A client-side apply keeps a copy in an annotation, of at most 256 KiB."""
    sizes = {
        name: len(yaml.safe_dump(found))
        for name, found in of_kind(combination(EVERYTHING), "ConfigMap").items()
    }
    assert len(sizes) >= 3
    assert {name: size for name, size in sizes.items() if size > 250_000} == {}


def _mounted_models(manifests: tuple[Manifest, ...], folder: Path) -> Path:
    """The folder that the services see; the same for each."""
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
    """The files that a kustomization names, itself included, and folders that are not below
    deploy/k8s.
    """
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
    found: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    return found


def _each_once(manifests: tuple[Manifest, ...]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names)) > 10
