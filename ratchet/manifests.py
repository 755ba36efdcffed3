"""Generates files in `deploy/` from other sources: `python -m ratchet.manifests deploy`.

k8s/components/kafka-topics/topics.yaml   from shared/messaging/topics.py
k8s/components/kafka-users/users.yaml     from the ACLs in ratchet/kafka_admin/kafka_acls.py
k8s/components/monitoring/rules.yaml      from prometheus/rules/*.yaml
grafana/kustomization.yaml                from the names of grafana/dashboards/*.json
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ratchet.kafka_admin.kafka_acls import KafkaAcl, acls_by_user
from shared.messaging.topics import TOPICS, Topic

Manifest = dict[str, Any]

CLUSTER = "ratchet"
"""Name of the Kafka resource to which topics and users belong."""


def topic_manifest(topic: Topic) -> Manifest:
    """Build a KafkaTopic; its replication is the cluster's `default.replication.factor`."""
    config = {
        name: int(value) if value.lstrip("-").isdigit() else value
        for name, value in topic.settings.items()
    }
    return _strimzi("KafkaTopic", topic.name, {"partitions": topic.partitions, "config": config})


def user_manifest(name: str, acls: Iterable[KafkaAcl]) -> Manifest:
    """Build a KafkaUser that authenticates with a client certificate and has only these ACLs."""
    rules = [
        {
            "resource": {
                "type": acl.kind,
                "name": acl.name,
                "patternType": "prefix" if acl.prefixed else "literal",
            },
            "operations": list(acl.operations),
        }
        for acl in acls
    ]
    return _strimzi(
        "KafkaUser",
        name,
        {"authentication": {"type": "tls"}, "authorization": {"type": "simple", "acls": rules}},
    )


def rules_manifest(groups: Sequence[Mapping[str, Any]]) -> Manifest:
    """Build a PrometheusRule from the groups of the rule files."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ratchet", "labels": {"app.kubernetes.io/part-of": "ratchet"}},
        "spec": {"groups": [dict(group) for group in groups]},
    }


def dashboards_kustomization(names: Iterable[str]) -> Manifest:
    """Build a kustomization that generates a labelled ConfigMap per dashboard, for Grafana's
    sidecar.
    """
    options = {
        "disableNameSuffixHash": True,
        "labels": {"grafana_dashboard": "1", "app.kubernetes.io/part-of": "ratchet"},
    }
    files = [
        {"name": f"dashboard-{Path(name).stem.replace('_', '-')}", "files": [f"dashboards/{name}"]}
        for name in names
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "generatorOptions": options,
        "configMapGenerator": files,
    }


def generated_files(deploy: Path) -> dict[Path, str]:
    """Return the text of every generated file below `deploy`."""
    components = deploy / "k8s" / "components"
    rules = sorted((deploy / "prometheus" / "rules").glob("*.yaml"))
    groups = [
        group
        for path in rules
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    dashboards = sorted(path.name for path in (deploy / "grafana" / "dashboards").glob("*.json"))
    return {
        components / "kafka-topics" / "topics.yaml": _text(
            "shared/messaging/topics.py", [topic_manifest(topic) for topic in TOPICS]
        ),
        components / "kafka-users" / "users.yaml": _text(
            "ratchet/kafka_admin/kafka_acls.py",
            [user_manifest(*user) for user in acls_by_user().items()],
        ),
        components / "monitoring" / "rules.yaml": _text(
            "deploy/prometheus/rules", [rules_manifest(groups)]
        ),
        deploy / "grafana" / "kustomization.yaml": _text(
            "the names of dashboards", [dashboards_kustomization(dashboards)]
        ),
    }


def _strimzi(kind: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": spec,
    }


def _text(source: str, manifests: Sequence[Manifest]) -> str:
    body = yaml.safe_dump_all(manifests, sort_keys=False, width=1000, allow_unicode=True)
    return f"# Generated from {source} by: make manifests\n{body}"


def main(deploy: Path) -> None:
    """Write the generated files."""
    for path, text in generated_files(deploy).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
