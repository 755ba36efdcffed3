"""Pods run with minimal privileges, network policies allow only the pipeline's connections, and
kube-score reports nothing.
"""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.rendering import (
    COMBINATIONS,
    EVERYTHING,
    OVERLAYS,
    Manifest,
    combination,
    of_kind,
    overlay,
    pods,
)
from tests.support.programs import require_program

IGNORED_CHECKS = {
    "container-image-pull-policy": "images are pinned by version; pulling them each time only adds "
    "a dependency on the registry",
    "container-security-context-user-group-id": "it requires ids above 10000; the PostgreSQL "
    "image has a fixed one, ours is 10001",
    "deployment-has-host-podantiaffinity": "replicas are spread by topologySpreadConstraints",
    "deployment-replicas": "the autoscaler sets at least two; dev intentionally has one of each",
}


@pytest.mark.parametrize(
    "names",
    COMBINATIONS,
    ids=lambda names: "+".join(names) if len(names) < 3 else f"{len(names)} components",
)
def test_every_pod_is_restricted(names: tuple[str, ...]) -> None:
    templates = pods(combination(names))
    assert len(templates) >= 4
    for name, pod in templates.items():
        assert not _privilege_problems(pod["spec"]), name


def test_the_privilege_check_detects_violations() -> None:
    assert _privilege_problems(
        {
            "hostNetwork": True,
            "containers": [{"securityContext": {"privileged": True}}],
            "volumes": [{"hostPath": {}}],
        }
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_pods_have_limits_and_probes(name: str) -> None:
    manifests = overlay(name)
    assert {
        it["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for it in of_kind(manifests, "Namespace").values()
    } == {"restricted"}
    for kind in of_kind(manifests, "Job"):
        assert not _privilege_problems(pods(manifests)[kind]["spec"])
    for workload, pod in pods(manifests).items():
        for container in pod["spec"]["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory", "ephemeral-storage"} <= resources[
                "requests"
            ].keys() & resources["limits"].keys(), workload
            if workload != "bases":
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), (
                    workload
                )
    kafka, nodes = (
        next(iter(of_kind(manifests, kind).values()))["spec"] for kind in ("Kafka", "KafkaNodePool")
    )
    operator = kafka["entityOperator"]["template"]
    assert operator["pod"]["securityContext"]["runAsNonRoot"]
    assert nodes["template"]["pod"]["securityContext"]["runAsNonRoot"]
    contexts = [
        nodes["template"]["kafkaContainer"],
        operator["topicOperatorContainer"],
        operator["userOperatorContainer"],
    ]
    assert all(it["securityContext"]["capabilities"] == {"drop": ["ALL"]} for it in contexts)
    assert not any(it["securityContext"]["allowPrivilegeEscalation"] for it in contexts)


@pytest.mark.parametrize("name", OVERLAYS)
def test_replicas_are_spread_with_a_disruption_budget(name: str) -> None:
    manifests = overlay(name)
    workloads = of_kind(manifests, "Deployment", "StatefulSet")
    budgets = of_kind(manifests, "PodDisruptionBudget")
    assert budgets.keys() == workloads.keys()
    for workload, budget in budgets.items():
        labels = workloads[workload]["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        # With minAvailable, a single replica would block the drain of a node.
        assert budget["spec"]["maxUnavailable"] == 1
        if labels["app.kubernetes.io/component"] == "service":
            spread = workloads[workload]["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert {it["topologyKey"] for it in spread} == {
                "topology.kubernetes.io/zone",
                "kubernetes.io/hostname",
            }


def test_no_manifest_or_variable_contains_a_secret() -> None:
    for manifest in combination(EVERYTHING):
        assert manifest["kind"] != "Secret"
    for name, pod in pods(combination(EVERYTHING)).items():
        for container in pod["spec"]["containers"]:
            assert all(
                "secretKeyRef" not in env.get("valueFrom", {}) for env in container.get("env", [])
            ), name
            assert all("secretRef" not in source for source in container.get("envFrom", [])), name


def test_network_policies_allow_only_the_pipeline() -> None:
    """The allowed connections between pods. An egress rule without the matching ingress rule would
    have no effect.
    """
    policies = of_kind(overlay("production"), "NetworkPolicy")
    assert policies["nothing"]["spec"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "ratchet"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    assert _connections(policies) == {
        ("service", "to", "in kube-system: kube-dns", "53"),
        ("service", "to", "Kafka", "9093"),
        ("feedback", "from", "in application: all", "8091"),
        ("trainer", "to", "ray", "10001"),
        ("registry", "to", "postgres", "5432"),
        ("postgres", "from", "registry", "5432"),
        ("registry", "to", "ollama", "11434"),
        ("ollama", "from", "registry", "11434"),
        ("ollama", "from", "in application: all", "8080"),
        ("registry", "from", "in people: all", "8080"),
        ("registry", "from", "in application: all", "8080"),
        ("service", "from", "in monitoring: prometheus", "http"),
    }


def test_only_the_trainer_reaches_ray() -> None:
    """Every client of Ray can execute arbitrary code."""
    assert _connections(of_kind(combination(("ray",)), "NetworkPolicy")) == {
        ("ray", "from", "ray", "1024-65535"),
        ("ray", "from", "trainer", "10001"),
        ("ray", "to", "ray", "1024-65535"),
        ("ray", "to", "in kube-system: kube-dns", "53"),
    }


def _connections(policies: dict[str, Manifest]) -> set[tuple[str, str, str, str]]:
    """Return (pods, "to" or "from", peer, port) for each rule."""
    return {
        (_peer_name(policy["spec"]["podSelector"]), "to", _peer_name(peer), _port(port))
        for policy in policies.values()
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        for port in rule["ports"]
    } | {
        (_peer_name(policy["spec"]["podSelector"]), "from", _peer_name(peer), _port(port))
        for policy in policies.values()
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        for port in rule["ports"]
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_ratchet_pod_is_under_the_policies(name: str) -> None:
    for workload, pod in pods(overlay(name)).items():
        assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ratchet", workload


@pytest.mark.parametrize("name", OVERLAYS)
def test_kube_score_reports_nothing(name: str, tmp_path: Path) -> None:
    """kube-score on all objects, except the ignored checks."""
    kinds = {
        "Deployment",
        "StatefulSet",
        "Job",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ConfigMap",
    }
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(yaml.safe_dump_all([it for it in overlay(name) if it["kind"] in kinds]))
    options = [option for test in IGNORED_CHECKS for option in ("--ignore-test", test)]
    process = subprocess.run(
        [
            require_program("kube-score"),
            "score",
            "--output-format",
            "ci",
            "--kubernetes-version",
            "v1.34",
            *options,
            str(rendered),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = process.stdout.splitlines()
    assert len([line for line in lines if line.startswith("[OK]")]) > 50, process.stderr
    assert [line for line in lines if not line.startswith(("[OK]", "[SKIPPED]"))] == []


def _privilege_problems(spec: Manifest) -> list[str]:
    """Return violations of the pod security profile `restricted` and of additional rules."""
    pod = spec.get("securityContext", {})
    problems = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    problems += (
        []
        if spec.get("automountServiceAccountToken") is False
        else ["mounts a service account token"]
    )
    problems += (
        []
        if spec.get("enableServiceLinks") is False
        else ["service variables may collide with settings"]
    )
    problems += (
        [] if pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0 else ["may be root"]
    )
    problems += (
        [] if pod.get("seccompProfile") == {"type": "RuntimeDefault"} else ["no seccomp profile"]
    )
    allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "ephemeral"}
    problems += [
        f"volume {volume}"
        for volume in spec.get("volumes", [])
        if volume.keys() - {"name"} - allowed
    ]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        context = container.get("securityContext", {})
        required = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        problems += [
            f"{name} of {container.get('name')}" for name in context.keys() ^ required.keys()
        ]
        problems += [
            f"{name} of {container.get('name')}"
            for name, value in required.items()
            if context.get(name) != value
        ]
        problems += [
            "uses a host port" for port in container.get("ports", []) if "hostPort" in port
        ]
    return problems


def _port(port: Manifest) -> str:
    return f"{port['port']}-{port['endPort']}" if "endPort" in port else str(port["port"])


def _peer_name(peer: Manifest) -> str:
    """Return a short name for a peer."""
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {})
    labels = (
        peer.get("podSelector", {})
        if "podSelector" in peer or "namespaceSelector" in peer
        else peer
    ).get("matchLabels", {})
    names = ("strimzi.io/kind", "k8s-app", "app.kubernetes.io/name", "app.kubernetes.io/component")
    pod = next((labels[name] for name in names if name in labels), "all")
    return f"in {next(iter(namespace.values()))}: {pod}" if namespace else pod
