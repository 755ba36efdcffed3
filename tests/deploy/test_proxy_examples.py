"""The examples of proxies in front of the registry: a real nginx, and the schemas of Ingress and
HTTPRoute.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import jsonschema_rs
import pytest
import yaml
from fastapi import FastAPI

from ratchet.local_stack.ports import free_port
from services.registry.api.routes import build
from services.registry.pages.routes import add_pages
from tests.deploy.rendering import of_kind, overlay
from tests.deploy.test_schemas import problems_of_kubernetes, strict_schema
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR, READER, TOKENS
from tests.support.programs import require_program
from tests.support.registry_events import DatabaseFixture

EXAMPLES = Path(__file__).parents[2] / "examples" / "proxy"
SCHEMA = Path(__file__).parent / "crds" / "gateway" / "httproute.json"
DEFAULTS = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {registry}; }} }}"


@contextmanager
def nginx(folder: Path, server: str, port: int) -> Iterator[httpx.Client]:
    """Run nginx with one server block; yields a client of it."""
    (folder / "nginx.conf").write_text(
        f"user root;\nerror_log stderr;\npid {folder}/pid;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; "
        f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; "
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{server}\n}}\n"
    )
    command = [require_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen([*command, "-e", "stderr", "-g", "daemon off;"])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(100):
                with suppress(httpx.ConnectError):
                    client.get("/healthz")
                    break
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    database = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
    yield Stage(database, tmp_path)
    database.close()


def registry_of(stage: Stage, require_tokens: bool) -> FastAPI:
    app = build(
        stage.registry, stage.health, stage.metrics.registry, lambda: TOKENS, require_tokens
    )
    add_pages(app, stage.registry, stage.store)
    return app


def test_default_proxy_needs_required_tokens(stage: Stage, tmp_path: Path) -> None:
    """With nginx's defaults every caller looks local: `RATCHET_REQUIRE_TOKENS` closes that."""
    for require_tokens, anonymous in ((False, 200), (True, 401)):
        port = free_port()
        with (
            serving(registry_of(stage, require_tokens)) as registry,
            nginx(tmp_path, DEFAULTS.format(port=port, registry=registry), port) as client,
        ):
            assert client.get("/api/models").status_code == anonymous
            assert client.get("/api/models", headers=READER).status_code == 200
            assert client.get("/healthz").status_code == 200


def test_nginx_example_passes_tokens_and_forms(stage: Stage, tmp_path: Path) -> None:
    example = (EXAMPLES / "nginx.conf").read_text()
    port = free_port()
    with serving(registry_of(stage, True)) as registry:
        replaced = {
            "listen 443 ssl": f"listen 127.0.0.1:{port}",
            "http://127.0.0.1:8080": registry,
        }
        for old, new in replaced.items():
            assert example.count(old) == 1
            example = example.replace(old, new)
        lines = [line for line in example.splitlines() if "ssl_certificate" not in line]
        with nginx(tmp_path, "\n".join(lines), port) as client:
            assert client.get("/api/models").status_code == 401
            assert client.get("/api/models", headers=READER).status_code == 200
            assert client.get("/api/models", headers=OPERATOR).status_code == 200
            host = {"Host": "ratchet.example.com"}
            token = OPERATOR["Authorization"].removeprefix("Bearer ")
            signed_in = client.post(
                "/sign-in",
                data={"token": token},
                headers={**host, "Origin": "https://ratchet.example.com"},
            )
            assert signed_in.status_code == 303, signed_in.text
            foreign = client.post(
                "/sign-in",
                data={"token": token},
                headers={**host, "Origin": "https://example.org"},
            )
            assert foreign.status_code == 403


def test_ingress_and_route_lead_to_the_registry() -> None:
    ingress = yaml.safe_load((EXAMPLES / "ingress.yaml").read_text())
    route = yaml.safe_load((EXAMPLES / "httproute.yaml").read_text())
    assert problems_of_kubernetes(ingress) == []
    schema = json.loads(SCHEMA.read_text())
    assert (route["apiVersion"], route["kind"]) == (schema["apiVersion"], schema["kind"])
    jsonschema_rs.validator_for(strict_schema(schema["schema"], root=True)).validate(route)
    service = of_kind(overlay("production"), "Service")["registry"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in ports
    (target,) = route["spec"]["rules"][0]["backendRefs"]
    assert (target["name"], target["port"]) == ("registry", ports["http"])
    for example in (ingress, route):
        assert example["metadata"]["namespace"] == service["metadata"]["namespace"]
