"""Inputs of the retention rule, and its removals, in the database.

A removal is scheduled in the transaction that reads the aliases, before an object is deleted: from
then on that version can be neither promoted nor rolled back to. A second row records that the
objects are gone, so that an interrupted removal is found and finished.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from services.registry.retention.rule import InUse, RetentionDecision, StoredAdapter
from services.registry.run_records import FINAL_STATES
from services.registry.store.audit_queries import add_audit_entry, champions_in_history
from services.registry.store.database import Session
from services.registry.store.queries import aliases_of, versions_of
from services.registry.store.removal_queries import all_runs_of, removed_run_ids
from services.registry.store.tables import AdapterRemovalDoneRow, AdapterRemovalRow
from shared.storage.adapters import MANIFEST, adapter_folder

ACTOR = "retention"


def stored_adapters(session: Session, model: str) -> list[StoredAdapter]:
    """Return the adapters of a model's runs that were not removed, newest run first.

    The path of a run's adapter without a version follows from its id; there may be none.
    """
    removed = removed_run_ids(session, model)
    versions = {version.run_id: version for version in versions_of(session, model)}
    adapters = []
    for run in all_runs_of(session, model):
        version = versions.get(run.run_id)
        uri = version.adapter_uri if version else f"{adapter_folder(model, run.run_id)}/{MANIFEST}"
        if run.run_id not in removed and uri is not None:
            adapters.append(
                StoredAdapter(
                    run.run_id,
                    version.name if version else None,
                    uri,
                    run.updated_at if run.state in FINAL_STATES else None,
                )
            )
    return adapters


def in_use(session: Session, model: str, served: Mapping[str, Collection[str]]) -> InUse:
    """Return the references to a model's versions; `served` lists the versions at each target."""
    row = aliases_of(session, model)
    aliases = {
        alias: named
        for alias in ("champion", "previous", "challenger")
        if row and (named := getattr(row, alias))
    }
    return InUse(aliases, served, champions_in_history(session, model))


def record_removals(
    session: Session,
    model: str,
    decisions: Sequence[RetentionDecision],
    reason: str,
    now: datetime,
) -> None:
    """Schedule the removal of adapters and record it in the audit log."""
    if not decisions:
        return
    for decision in decisions:
        stored = decision.stored
        session.add(
            AdapterRemovalRow(
                run_id=stored.run_id,
                model=model,
                version=stored.version,
                uri=stored.uri,
                reason=reason,
                at=now,
            )
        )
    removed = [decision.stored for decision in decisions]
    versions = [stored.version for stored in removed if stored.version is not None]
    candidates = [stored.run_id for stored in removed if stored.version is None]
    add_audit_entry(
        session,
        model,
        ACTOR,
        "remove",
        f"removed the adapters of {len(versions)} versions and {len(candidates)} rejected "
        f"candidates: {reason}",
        now,
        {"versions": versions, "runs": candidates},
    )


def mark_removed(session: Session, run_id: str, objects: int, now: datetime) -> None:
    """Record that the objects of a removal, `objects` of them, are deleted."""
    session.add(AdapterRemovalDoneRow(run_id=run_id, objects=objects, at=now))
