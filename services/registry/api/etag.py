"""Conditional moves: an entity tag identifies the aliases of a model, and `If-Match` carries the
one that the client has seen.
"""

import re

from services.registry.api.schemas import CurrentAliases
from services.registry.store.database import Session
from services.registry.store.queries import lock_aliases
from services.registry.store.tables import AliasRow
from shared.errors import RatchetError
from shared.identity import identity

IF_MATCH_PATTERN = r'^(\*|(W/)?"[^"]*"([ \t]*,[ \t]*(W/)?"[^"]*")*)$'
"""Pattern of `If-Match` (RFC 9110, 13.1.1)."""

_TAG = re.compile(r'(W/)?"[^"]*"')


class PreconditionFailed(RatchetError):
    """The aliases have changed since the ETag in `If-Match`."""

    def __init__(self, model: str, current: CurrentAliases) -> None:
        super().__init__(
            f"the aliases of {model} have changed since the ETag in If-Match: its champion is now "
            f"{current.champion or 'none'}; get GET /api/models/{model}, and send its ETag to "
            "retry the move"
        )
        self.current = current


def aliases_etag(model: str, row: AliasRow | None) -> str:
    """Return the entity tag of a model's aliases. It changes with every move of the champion, also
    back and forth.
    """
    state = (row.move, row.champion, row.previous, row.challenger) if row else ()
    parts = (part if part is not None else "" for part in state)
    return f'"{identity("aliases", model, *parts)[:20]}"'


def current_aliases(model: str, row: AliasRow | None) -> CurrentAliases:
    """Return the aliases of a model with their entity tag."""
    return CurrentAliases(
        champion=row.champion if row else None,
        previous=row.previous if row else None,
        challenger=row.challenger if row else None,
        etag=aliases_etag(model, row),
    )


def require_match(session: Session, model: str, if_match: str) -> None:
    """Lock the aliases of a model and compare them with `if_match`. Raises PreconditionFailed."""
    row = lock_aliases(session, model)
    # If-Match uses strong comparison: a weak tag never matches.
    tags = {match.group() for match in _TAG.finditer(if_match)}
    if (if_match == "*" and row is None) or (
        if_match != "*" and aliases_etag(model, row) not in tags
    ):
        raise PreconditionFailed(model, current_aliases(model, row))
