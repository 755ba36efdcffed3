"""The OpenAPI document: schemathesis sends valid and invalid requests to a running registry."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from services.registry.api import retention as retention_api
from services.registry.api import schemas as answers
from services.registry.api import views
from services.registry.api.lists import (
    history_page,
    models_page,
    runs_page,
    versions_page,
    withdrawals_page,
)
from services.registry.api.pagination import PageRequest
from services.registry.api.problems import Problem
from services.registry.handlers import HandlerContext, checkpoint_saved
from services.registry.retention.pruner import Pruner
from services.registry.rollout.holds import release
from services.registry.store.database import Session
from services.registry.store.queries import canary_trial_of, lineage_of, versions_of
from services.registry.store.tables import CanaryTargetRow, DeploymentRow, RunRow
from services.registry.versions.withdrawals import record_withdrawal
from shared.config.canary import CanarySettings
from shared.http.problem_details import PROBLEM_JSON
from tests.registry.api.test_training_requests import add_dataset
from tests.registry.deploy.test_deployment import Stage
from tests.registry.versions.test_withdrawals import withdrawn
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import NOW, DatabaseFixture, checkpoint

OPERATIONS = (
    "GET /api/models",
    "GET /api/models/{model}",
    "GET /api/models/{model}/versions",
    "GET /api/models/{model}/versions/{version}",
    "GET /api/models/{model}/withdrawals",
    "GET /api/models/{model}/runs",
    "GET /api/models/{model}/training-requests",
    "GET /api/models/{model}/training-requests/{request_id}",
    "GET /api/models/{model}/aliases/{alias}",
    "GET /api/models/{model}/history",
    "GET /api/models/{model}/retention",
    "GET /api/models/{model}/route",
    "GET /api/audit",
    "GET /api/versions/{version_id}/lineage",
    "GET /api/runs/{run_id}",
    "POST /api/models/{model}/promote",
    "POST /api/models/{model}/rollback",
    "POST /api/models/{model}/hold",
    "POST /api/models/{model}/release",
    "POST /api/models/{model}/uploads",
    "POST /api/models/{model}/training-requests",
    "POST /api/models/{model}/pause",
    "POST /api/models/{model}/resume",
    "POST /api/runs/{run_id}/cancel",
    "POST /api/runs/{run_id}/resume",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
)

VALIDATING = tuple(
    label
    for label in OPERATIONS
    if label.startswith("POST ")
    or (label.endswith(("s", "history", "audit", "route", "{alias}")) and "/api/" in label)
)
"""Operations with invalid requests; the others only have a name in their path, which may be any."""

THERE = {"model": "support", "alias": "champion", "run_id": "r1"}

seeded = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def put_on_trial(registry_db: DatabaseFixture, run: str) -> None:
    """Start a canary trial of a challenger that is ready on its target."""
    registry_db.run(
        lambda session: checkpoint_saved(
            session,
            checkpoint(run, registry_db.champion),
            HandlerContext(NOW, canary=CanarySettings()),
        )
    )
    target_row = CanaryTargetRow(
        model="support",
        version=str(registry_db.aliases.challenger),
        target="fake",
        state="ready",
        digest=None,
        reason="",
        at=NOW,
    )
    registry_db.run(lambda session: session.add(target_row))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A registry with data for every response of the API."""
    folder = tmp_path_factory.mktemp("registry")
    registry_db = DatabaseFixture(f"sqlite:///{folder}/registry.db")
    stage = Stage(registry_db, folder)
    stage.registry.deployer._targets = {}  # nothing to wait for
    stage.health.mark_ready()
    stage.promote("r1")
    stage.promote("r2")
    models, targets = stage.registry.models, {"support": [stage.target]}
    pruner = Pruner(
        registry_db.database, stage.store, models, targets, stage.merged_models, stage.runtime
    )
    stage.app.include_router(retention_api.routes(models, pruner))
    put_on_trial(registry_db, "r3")
    add_dataset(stage)
    registry_db.run(
        lambda session: record_withdrawal(session, withdrawn("w", ("batch of r1", ["e1"])), 0, NOW)
    )
    finding = {"passed": True, "reasons": [], "probes": 1, "tokens": 9, "mean_difference": None}
    finding |= {"seconds_per_token": 0.02, "seconds_per_token_before": None}
    fields: dict[str, Any] = {
        "model": "support",
        "target": "folder",
        "version": registry_db.champion,
        "move": 3,
        "state": "deployed",
    }
    registry_db.run(
        lambda session: session.add(
            DeploymentRow(**fields, reason="", seconds=0.1, finding=finding, at=NOW)
        )
    )
    yield stage
    registry_db.close()


@pytest.fixture(scope="module")
def address(stage: Stage) -> Iterator[str]:
    with serving(stage.app) as address:
        yield address


@pytest.fixture(scope="module")
def document(address: str) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("label", OPERATIONS)
def test_valid_requests_get_documented_responses(document: OpenApiSchema, label: str) -> None:
    """Sends requests for existing and for unknown resources. An invented cursor matches the schema
    and is refused nevertheless.
    """
    operation = document.find_operation_by_label(label)
    assert operation is not None
    there = {name: value for name, value in THERE.items() if f"{{{name}}}" in label}

    @seeded
    @given(case=operation.as_strategy(path_parameters=there or None) | operation.as_strategy())
    def send(case: Case[Any]) -> None:
        case.call_and_validate(headers=OPERATOR, excluded_checks=[positive_data_acceptance])

    send()


@pytest.mark.parametrize("label", VALIDATING)
def test_invalid_requests_get_documented_errors(document: OpenApiSchema, label: str) -> None:
    operation = document.find_operation_by_label(label)
    assert operation is not None

    @seeded
    @given(case=operation.as_strategy(GenerationMode.NEGATIVE))
    def send(case: Case[Any]) -> None:
        case.call_and_validate(headers=OPERATOR)

    send()


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("POST ")])
def test_moves_need_a_token(document: OpenApiSchema, stage: Stage, label: str) -> None:
    operation = document.find_operation_by_label(label)
    assert operation is not None
    before = stage.registry_db.aliases.move

    @seeded
    @given(case=operation.as_strategy(path_parameters={"model": "support"}))
    def send(case: Case[Any]) -> None:
        assert case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code == 401

    send()
    assert stage.registry_db.aliases.move == before


def test_openapi_describes_every_operation(stage: Stage) -> None:
    document = stage.app.openapi()
    operations = {
        f"{method.upper()} {path}": about
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    }
    assert sorted(operations) == sorted(OPERATIONS)
    assert len({about["operationId"] for about in operations.values()}) == len(OPERATIONS)
    for name, about in operations.items():
        if " /api/" not in name:
            continue
        (content,) = about["responses"]["200"]["content"].values()
        assert content["schema"].get("$ref", "").startswith("#/components/schemas/"), name
        assert set(about["responses"]) >= {"200", "401", "422", "503", "default"}, name
        for status, response in about["responses"].items():
            assert (list(response["content"]) == [PROBLEM_JSON]) == (status != "200"), (
                name,
                status,
            )
        assert ({} in about["security"]) == name.startswith("GET "), name
        assert {"token": []} in about["security"], name
    assert set(document["components"]["securitySchemes"]) == {"token", "cookie"}
    assert {"HTTPValidationError", "ValidationError"} & set(
        document["components"]["schemas"]
    ) == set()


def test_schemas_describe_every_response_field(stage: Stage) -> None:
    """The schemas allow extra fields, so this test detects undocumented ones."""

    def first_row(page: Any) -> dict[str, Any]:
        return dict(page.rows[0])

    if (
        stage.registry_db.run(lambda session: canary_trial_of(session, "support")) is None
    ):  # a test has moved the champion
        stage.registry_db.run(
            lambda session: release(session, "support", "operator", "for this", NOW)
        )
        put_on_trial(stage.registry_db, "r4")

    def responses(session: Session) -> list[tuple[type[answers.ApiModel], dict[str, Any]]]:
        run = session.get_one(RunRow, "r1")
        version = next(each for each in versions_of(session, "support") if each.run_id == "r2")
        model = first_row(models_page(session, ["support"], PageRequest("models", 1, None)))
        line = views.lineage_view(session, version)
        assert len(line["lineage"]) == len(lineage_of(session, version)) == 3
        return [
            (answers.Model, model),
            (answers.Deployment, model["deployments"][0]),
            (answers.DeploymentCheck, model["deployments"][0]["finding"]),
            (answers.CanaryStatus, model["trial"]),
            (answers.CanaryTarget, model["trial"]["places"][0]),
            (
                answers.Version,
                first_row(versions_page(session, "support", PageRequest("versions", 1, None))),
            ),
            (
                answers.AuditEntry,
                first_row(history_page(session, "support", PageRequest("history", 1, None))),
            ),
            (
                answers.Withdrawal,
                first_row(
                    withdrawals_page(session, "support", PageRequest("withdrawals", 1, None))
                ),
            ),
            (
                answers.RunSummary,
                first_row(runs_page(session, "support", PageRequest("runs", 1, None))),
            ),
            (answers.Lineage, line),
            (answers.Ancestor, line["lineage"][0]),
            (answers.Run, views.run_view(session, run)),
        ]

    for described, answer in stage.registry_db.run(responses):
        names = {field.alias or name for name, field in described.model_fields.items()}
        assert set(answer) == names, described.__name__


async def test_internal_error_reveals_no_details(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(stage.registry_db.database, "run_sync", fail)
    transport = httpx.ASGITransport(stage.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://registry", headers=OPERATOR
    ) as client:
        answer = await client.get("/api/models/support")
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM_JSON)
    assert Problem.model_validate(answer.json()).title == "internal error"
    assert "hunter2" not in answer.text


async def test_unsupported_method_lists_allowed_methods(
    stage: Stage,
) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app), base_url="http://registry"
    ) as client:
        answer = await client.delete("/api/models/support")
    assert (answer.status_code, answer.headers["content-type"], answer.headers["allow"]) == (
        405,
        PROBLEM_JSON,
        "GET",
    )
