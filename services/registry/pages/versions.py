"""Views of a version, a run, a comparison of two versions, and a lineage."""

from services.registry.api.views import View, audit_view, deployment_view, run_view, version_view
from services.registry.pages.charts import interval_bars
from services.registry.pages.differences import answer_of, answer_pairs, differences
from services.registry.pages.models import progress_view
from services.registry.pages.scores import interval_sign, verdict_of, with_scores
from services.registry.store.database import Session
from services.registry.store.queries import (
    batch_of,
    champion_moves,
    deployments_of_version,
    lineage_of,
    rewards_by_version,
    versions_of,
)
from services.registry.store.tables import BatchRow, RunRow, VersionRow
from services.registry.training_controls import UnknownRun
from services.registry.versions.moves import require_version
from shared.events import Artefact, Verdict


def version_page_view(session: Session, model: str, name: str) -> View:
    """Return a version with its run, artefacts, deployments and probes. Raises UnknownVersion."""
    version = require_version(session, model, name)
    view = with_scores(version_view(session, version), rewards_by_version(session, model))
    run = session.get(RunRow, version.run_id) if version.run_id else None
    batch = batch_of(session, version.batch_id) if version.batch_id else None
    return {
        **view,
        "run": _run_view(session, run) if run else None,
        "evaluation": evaluation_view(view["verdict"]),
        "batch": batch,
        "artefacts": _artefacts(version, batch),
        "served": [deployment_view(row) for row in deployments_of_version(session, model, name)],
        "answers": [(probe["messages"], answer_of(probe)) for probe in version.probes],
    }


def run_page_view(session: Session, model: str, run_id: str) -> View:
    """Return a run, finished or not. Raises UnknownRun."""
    run = session.get(RunRow, run_id)
    if run is None or run.model != model:
        raise UnknownRun(f"{model} has no run {run_id!r}")
    verdict = verdict_of(run.verdict)
    return {
        **_run_view(session, run),
        "evaluation": evaluation_view(verdict),
        "batch": batch_of(session, run.batch_id),
    }


def evaluation_view(verdict: Verdict | None) -> View | None:
    """Return a verdict with a bar and a sign for the confidence interval of each comparison."""
    if verdict is None:
        return None
    rows = [(row.lower, row.difference, row.upper, row.margin) for row in verdict.comparisons]
    return {
        "verdict": verdict,
        "comparisons": [
            {"comparison": comparison, "bar": bar, "sign": interval_sign(comparison)}
            for comparison, bar in zip(verdict.comparisons, interval_bars(rows), strict=True)
        ],
    }


def compare_view(session: Session, model: str, first: str, second: str) -> View:
    """Return the differences between two versions, and their answers to the same prompts. Raises
    UnknownVersion.
    """
    left, right = require_version(session, model, first), require_version(session, model, second)
    rewards = rewards_by_version(session, model)
    views = [with_scores(version_view(session, version), rewards) for version in (left, right)]
    facts = [
        _facts(session, version, view) for version, view in zip((left, right), views, strict=True)
    ]
    return {
        "first": views[0],
        "second": views[1],
        "differences": differences(*facts),
        "answers": answer_pairs(left.probes, right.probes),
    }


def lineage_page_view(session: Session, model: str, name: str) -> View:
    """Return a version's lineage, each step from feedback to deployment. Raises UnknownVersion."""
    version = require_version(session, model, name)
    moves = champion_moves(session, model)
    steps = [
        {
            **version_view(session, step),
            "batch": batch_of(session, step.batch_id) if step.batch_id else None,
            "run": progress_view(run)
            if step.run_id and (run := session.get(RunRow, step.run_id))
            else None,
            "moves": [audit_view(row) for row in moves if row.to_version == step.name],
            "served": [
                deployment_view(row) for row in deployments_of_version(session, model, step.name)
            ],
        }
        for step in lineage_of(session, version)
    ]
    return {"model": model, "version": name, "steps": steps}


def version_names(session: Session, model: str) -> list[str]:
    """Return the names of a model's versions, newest first."""
    return [version.name for version in versions_of(session, model)]


def _run_view(session: Session, run: RunRow) -> View:
    view = {**run_view(session, run), **progress_view(run)}
    view["plot"] = {
        "across": "step",
        "x": [point["step"] for point in view["points"]],
        "lines": [
            {
                "label": "loss (nats per token)",
                "values": [point["loss"] for point in view["points"]],
            }
        ],
    }
    return view


def _artefacts(version: VersionRow, batch: BatchRow | None) -> list[tuple[str, str, str]]:
    """Return the artefacts of a version as (name, location, digest)."""
    artefacts = [
        ("adapter", version.adapter_uri, version.adapter_digest),
        ("merged file", version.merged_path, version.merged_digest),
        ("base", "model.safetensors of the base", version.base_digest),
        ("model file", f"models/{version.model}.yaml", version.model_digest),
        ("batch", batch.manifest_uri if batch else None, batch.manifest_digest if batch else None),
    ]
    return [(name, uri or "", digest) for name, uri, digest in artefacts if digest]


def manifest_of(batch: BatchRow) -> Artefact:
    return Artefact(uri=batch.manifest_uri, digest=batch.manifest_digest)


def _facts(session: Session, version: VersionRow, view: View) -> View:
    """Return the compared facts of a version: configuration, data and evaluation."""
    batch = batch_of(session, version.batch_id) if version.batch_id else None
    verdict: Verdict | None = view["verdict"]
    return {
        "parent": version.parent,
        "lane": version.lane,
        "base": version.base_digest,
        "model file": version.model_digest,
        "configuration": version.configuration or {},
        "batch": {"number": batch.number, **batch.counts} if batch else {},
        "training": version.metrics or {},
        "verdict": _verdict_scores(verdict) if verdict else {},
    }


def _verdict_scores(verdict: Verdict) -> View:
    scores: View = {row.name: round(row.candidate, 4) for row in verdict.comparisons}
    measures = {f"{row.name} on {row.set}": round(row.candidate, 4) for row in verdict.measures}
    return {"decision": verdict.decision, "against": verdict.baseline_version, **scores, **measures}
