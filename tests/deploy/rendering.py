"""Renders the manifests with kustomize, each combination once per test session."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.support.programs import require_program

Manifest = dict[str, Any]

DEPLOY = Path("deploy")
K8S = DEPLOY / "k8s"
MODELS = Path("models")
COMPONENTS = tuple(sorted(path.name for path in (K8S / "components").iterdir()))
OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir()))
OPTIONAL = ("intake", "kafka-scram", "kueue", "ray", "trainer-window", "webhooks")
"""Components that no overlay uses: alternatives or additions for a site."""

EVERYTHING = tuple(name for name in COMPONENTS if name != "kafka-scram")
WITH_SCRAM = tuple(name for name in COMPONENTS if name != "kafka-certificates")
COMBINATIONS: tuple[tuple[str, ...], ...] = (
    (),
    *((name,) for name in COMPONENTS),
    EVERYTHING,
    WITH_SCRAM,
)


@cache
def overlay(name: str) -> tuple[Manifest, ...]:
    """Return the objects that `kubectl apply -k` would send."""
    return _build(K8S / "overlays" / name)


@cache
def combination(components: Sequence[str]) -> tuple[Manifest, ...]:
    """Return the base with the models and some components, like a site's overlay."""
    with TemporaryDirectory() as folder:
        here = Path(folder)
        paths = [MODELS, *(K8S / "components" / name for name in components)]
        (here / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "kustomize.config.k8s.io/v1beta1",
                    "kind": "Kustomization",
                    "namespace": "ratchet",
                    "resources": [_from(here, K8S / "base")],
                    "components": [_from(here, path) for path in paths],
                }
            )
        )
        return _build(here)


def everything() -> Iterator[tuple[str, Manifest]]:
    """Yield every distinct object of every overlay and combination, with a name for messages."""
    seen: set[str] = set()
    for manifests in (
        *(overlay(name) for name in OVERLAYS),
        *(combination(names) for names in COMBINATIONS),
    ):
        for manifest in manifests:
            if (text := json.dumps(manifest, sort_keys=True)) not in seen:
                seen.add(text)
                yield f"{manifest['kind']} {manifest['metadata']['name']}", manifest


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Return the objects of some kinds, by name."""
    return {
        manifest["metadata"]["name"]: manifest
        for manifest in manifests
        if manifest["kind"] in kinds
    }


def pods(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """Return the pod templates, by workload name."""
    templates = {
        name: workload["spec"]["template"]
        for name, workload in of_kind(manifests, "Deployment", "StatefulSet", "Job").items()
    }
    for cluster in of_kind(manifests, "RayCluster").values():
        templates |= ray_pods(cluster)
    return templates


def ray_pods(cluster: Manifest) -> dict[str, Manifest]:
    """Return the pod templates of a Ray cluster: of its head and of each worker group."""
    groups = {
        f"ray {group['groupName']}": group["template"]
        for group in cluster["spec"]["workerGroupSpecs"]
    }
    return {"ray head": cluster["spec"]["headGroupSpec"]["template"], **groups}


def _build(folder: Path) -> tuple[Manifest, ...]:
    process = subprocess.run(
        [require_program("kustomize"), "build", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, f"{folder}: {process.stderr}"
    return tuple(yaml.load_all(process.stdout, Loader=_LOADER))


def _from(here: Path, path: Path) -> str:
    return os.path.relpath(path.resolve(), here.resolve())


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
