"""View of the audit log: its newest entries, and the head of its hash chain."""

from services.registry.api.audit.routes import chained_view
from services.registry.api.views import View
from services.registry.store.audit_chain import count_unchained, newest_entries
from services.registry.store.database import Session

_LIMIT = 100
_LARGEST = 1 << 53


def audit_page_view(session: Session, model: str | None, before: int | None) -> View:
    """Return the newest entries with a number below `before`, of one model or of all. `older` is
    the `before` of the next page, None on the last one.
    """
    before = None if before is None or not 0 <= before < _LARGEST else before
    rows = newest_entries(session, _LIMIT + 1, model, before)
    head = next(iter(newest_entries(session, 1)), None)
    return {
        "model": model,
        "entries": [chained_view(row) for row in rows[:_LIMIT]],
        "older": rows[_LIMIT - 1].number if len(rows) > _LIMIT else None,
        "head": chained_view(head) if head is not None else None,
        "unchained": count_unchained(session),
    }
