"""Every rendered object is valid by the schema of its kind: Kubernetes' own or that of its custom
resource definition.

Unknown fields are errors, because a cluster ignores misspelled fields.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest

from tests.deploy.rendering import Manifest, everything, ray_pods

KUBERNETES = "1.34"
CRDS = sorted((Path(__file__).parent / "crds").glob("*.json"))
KUBERNETES_KINDS = {
    "Deployment",
    "StatefulSet",
    "Job",
    "Service",
    "ServiceAccount",
    "ConfigMap",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "Namespace",
}
KUBERNETES_KINDS |= {"PodDisruptionBudget"}


def test_every_object_is_valid() -> None:
    objects = list(everything())
    kinds = {manifest["kind"] for _, manifest in objects}
    assert kinds == KUBERNETES_KINDS | {json.loads(path.read_text())["kind"] for path in CRDS}, (
        "every kind needs a schema, and every schema an object"
    )
    problems = [
        f"{name}: {problem}" for name, manifest in objects for problem in problems_of(manifest)
    ]
    assert problems == []


@pytest.mark.parametrize(
    "manifest",
    [
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": "a"},
            "spec": {"partition": 4},
        },
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": "a"},
            "spec": {"partitions": 0},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "a"},
            "spec": {"selectors": {}},
        },
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "metadata": {"name": "a"},
            "spec": {
                "headGroupSpec": {"template": {"spec": {"container": []}}},
                "workerGroupSpecs": [],
            },
        },
    ],
    ids=[
        "misspelled",
        "out of range",
        "misspelled in a Kubernetes kind",
        "misspelled in a Ray pod",
    ],
)
def test_invalid_objects_are_detected(manifest: Manifest) -> None:
    assert problems_of(manifest)


def problems_of(manifest: Manifest) -> list[str]:
    validator = _validators().get((manifest["apiVersion"], manifest["kind"]))
    if validator is None:
        return problems_of_kubernetes(manifest)
    problems = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator.iter_errors(manifest)
    ]
    if manifest["kind"] == "RayCluster":
        for name, template in ray_pods(manifest).items():
            pod = {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "a"},
                "template": template,
            }
            problems += [f"{name}: {problem}" for problem in problems_of_kubernetes(pod)]
    return problems


def problems_of_kubernetes(manifest: Manifest) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


@cache
def _validators() -> dict[tuple[str, str], Any]:
    assert len(CRDS) == 10
    definitions = [json.loads(path.read_text(encoding="utf-8")) for path in CRDS]
    return {
        (crd["apiVersion"], crd["kind"]): jsonschema_rs.validator_for(
            strict_schema(crd["schema"], root=True)
        )
        for crd in definitions
    }


def strict_schema(schema: Any, root: bool = False) -> Any:
    """Return a structural schema that rejects unknown fields, which the API server would drop."""
    if not isinstance(schema, dict):
        return schema
    strict = {
        name: {key: strict_schema(value) for key, value in part.items()}
        if name == "properties"
        else strict_schema(part)
        for name, part in schema.items()
    }
    if (
        "properties" in strict
        and not schema.get("x-kubernetes-preserve-unknown-fields")
        and "additionalProperties" not in strict
    ):
        strict["additionalProperties"] = False
    return strict
