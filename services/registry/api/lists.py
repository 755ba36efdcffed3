"""The lists of the API, page by page: each in an order in which a row that is there never changes
its place.
"""

from collections.abc import Iterable
from datetime import datetime

from services.registry.api.pagination import Page, PageRequest, paginate
from services.registry.api.views import (
    View,
    audit_view,
    model_view,
    versions_view,
    withdrawals_view,
)
from services.registry.store.database import Session
from services.registry.store.queries import history_of, versions_of
from services.registry.versions.withdrawals import forgotten_users


def models_page(session: Session, names: Iterable[str], page: PageRequest[str]) -> Page[View]:
    """Models by name."""
    rest = [name for name in sorted(names) if page.after is None or name > page.after]
    found = paginate(page, rest, lambda name: [name])
    return Page([model_view(session, name) for name in found.rows], found.next)


def versions_page(session: Session, model: str, page: PageRequest[int]) -> Page[View]:
    """Versions of a model, newest first."""
    found = paginate(
        page,
        versions_of(session, model, page.after, page.limit + 1),
        lambda version: [version.number],
    )
    return Page(versions_view(session, model, found.rows), found.next)


def history_page(session: Session, model: str, page: PageRequest[int]) -> Page[View]:
    """Who moved what, when, and on which evidence; newest first."""
    found = paginate(
        page, history_of(session, model, page.limit + 1, page.after), lambda row: [row.id]
    )
    return Page([audit_view(row) for row in found.rows], found.next)


def withdrawals_page(
    session: Session, model: str, page: PageRequest[tuple[datetime, str]]
) -> Page[View]:
    """Users who were forgotten, newest first; by when they were, which is the same in every answer
    that is still to come.
    """
    found = paginate(
        page,
        forgotten_users(session, model, page.after, page.limit + 1),
        lambda row: [row[1].isoformat(), row[0]],
    )
    return Page(withdrawals_view(session, model, [name for name, _ in found.rows]), found.next)
