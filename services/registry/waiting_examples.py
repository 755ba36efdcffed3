"""Examples that wait for a batch, as the dataset service reports them for each shard of a model."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from services.registry.store.database import Session
from services.registry.store.tables import WaitingReportRow
from services.registry.store.training_queries import waiting_reports
from shared.events import HeldBack, QuotaLimit, WaitingReported, WaitingStatus


def record_report(session: Session, report: WaitingReported) -> None:
    """Record a report, unless a newer one of its shard is known."""
    row = session.get(WaitingReportRow, (report.model, report.shard))
    if row is None:
        row = WaitingReportRow(model=report.model, shard=report.shard)
        session.add(row)
    elif report.occurred_at < row.reported_at:
        return
    row.reported_at, row.status = report.occurred_at, report.status.model_dump(mode="json")


def waiting_examples_view(session: Session, model: str) -> dict[str, Any] | None:
    """Return the examples of a model that wait, those of all its shards together; None without a
    report. `text` says it in words.
    """
    rows = waiting_reports(session, model)
    if not rows:
        return None
    statuses = [WaitingStatus.model_validate(row.status) for row in rows]
    total = total_of(statuses)
    return {
        "text": str(total) if len(rows) == 1 else _text_of_shards(total, statuses),
        **total.model_dump(),
        "reported_at": max(row.reported_at for row in rows),
        "shards": [
            {"shard": row.shard, "text": str(status), "reported_at": row.reported_at}
            for row, status in zip(rows, statuses, strict=True)
        ],
    }


def total_of(statuses: Sequence[WaitingStatus]) -> WaitingStatus:
    """Add up the examples of shards. Each forms batches of its own: what a batch needs is that of
    the shard that closes one first.
    """
    examples, sources = Counter[QuotaLimit](), Counter[QuotaLimit]()
    for status in statuses:
        for each in status.held_back:
            examples[each.limit] += each.examples
            sources[each.limit] += each.sources
    update = {
        "usable": sum(status.usable for status in statuses),
        "held_back": tuple(
            HeldBack(limit=limit, examples=count, sources=sources[limit])
            for limit, count in examples.items()
        ),
        "new_users": sum(status.new_users for status in statuses),
    }
    return _first_to_close(statuses).model_copy(update=update)


def _first_to_close(statuses: Sequence[WaitingStatus]) -> WaitingStatus:
    return min(statuses, key=lambda status: status.needed - status.usable)


def _text_of_shards(total: WaitingStatus, statuses: Sequence[WaitingStatus]) -> str:
    closes = _first_to_close(statuses).closes
    return f"{total.needed} needed in one of {len(statuses)} shards: {total.parts}; first {closes}"
