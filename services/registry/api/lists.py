"""Paginated lists of the API, each in a stable order."""

from collections.abc import Iterable
from datetime import datetime

from services.registry.api.pagination import Page, PageRequest, paginate
from services.registry.api.views import (
    View,
    audit_view,
    model_view,
    run_summary_view,
    versions_view,
    withdrawals_view,
)
from services.registry.store.database import Session
from services.registry.store.queries import history_of, runs_of, versions_of
from services.registry.store.withdrawal_queries import erased_users


def models_page(session: Session, names: Iterable[str], page: PageRequest[str]) -> Page[View]:
    """Return models by name."""
    rest = [name for name in sorted(names) if page.after is None or name > page.after]
    result = paginate(page, rest, lambda name: [name])
    return Page([model_view(session, name) for name in result.rows], result.next)


def versions_page(session: Session, model: str, page: PageRequest[int]) -> Page[View]:
    """Return versions of a model, newest first."""
    result = paginate(
        page,
        versions_of(session, model, page.after, page.limit + 1),
        lambda version: [version.number],
    )
    return Page(versions_view(session, model, result.rows), result.next)


def history_page(session: Session, model: str, page: PageRequest[int]) -> Page[View]:
    """Return audit entries of a model, newest first."""
    result = paginate(
        page, history_of(session, model, page.limit + 1, page.after), lambda row: [row.id]
    )
    return Page([audit_view(row) for row in result.rows], result.next)


def runs_page(session: Session, model: str, page: PageRequest[tuple[datetime, str]]) -> Page[View]:
    """Return runs of a model, newest first."""
    result = paginate(
        page,
        runs_of(session, model, page.limit + 1, page.after),
        lambda run: [run.started_at.isoformat(), run.run_id],
    )
    return Page([run_summary_view(run) for run in result.rows], result.next)


def withdrawals_page(
    session: Session, model: str, page: PageRequest[tuple[datetime, str]]
) -> Page[View]:
    """Return the withdrawals of each user, newest first by the time of the user's first withdrawal,
    which later ones do not change.
    """
    result = paginate(
        page,
        erased_users(session, model, page.after, page.limit + 1),
        lambda row: [row[1].isoformat(), row[0]],
    )
    return Page(withdrawals_view(session, model, [name for name, _ in result.rows]), result.next)
