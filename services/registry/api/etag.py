"""Moves that hold only if nothing has moved meanwhile: an entity tag stands for the aliases of a
model, and `If-Match` names those that whoever decides has seen.
"""

import re

from services.registry.api.schemas import CurrentAliases
from services.registry.store.database import Session
from services.registry.store.queries import lock_aliases
from services.registry.store.tables import AliasRow
from shared.errors import RatchetError
from shared.identity import identity

IF_MATCH_PATTERN = r'^(\*|(W/)?"[^"]*"([ \t]*,[ \t]*(W/)?"[^"]*")*)$'
"""What `If-Match` says (RFC 9110, 13.1.1)."""

_TAG = re.compile(r'(W/)?"[^"]*"')


class PreconditionFailed(RatchetError):
    """The aliases are not those that were expected."""

    def __init__(self, model: str, current: CurrentAliases) -> None:
        super().__init__(
            f"the aliases of {model} are not those that If-Match names: its champion is "
            f"{current.champion or 'none'} now; look at "
            f"GET /api/models/{model}, and send its ETag if the move is still wanted"
        )
        self.current = current


def aliases_etag(model: str, row: AliasRow | None) -> str:
    """The entity tag of a model's aliases: another one after every move of the champion, back and
    forth as well.
    """
    state = (row.move, row.champion, row.previous, row.challenger) if row else ()
    return f'"{identity("aliases", model, *(part if part is not None else "" for part in state))[:20]}"'


def current_aliases(model: str, row: AliasRow | None) -> CurrentAliases:
    """The aliases of a model, with their tag."""
    return CurrentAliases(
        champion=row.champion if row else None,
        previous=row.previous if row else None,
        challenger=row.challenger if row else None,
        etag=aliases_etag(model, row),
    )


def require_match(session: Session, model: str, if_match: str) -> None:
    """Lock the aliases of a model, which are those that `if_match` names. Raises Overtaken."""
    row = lock_aliases(session, model)
    # A weak tag never matches: what is decided on has to be the same, not alike.
    tags = {match.group() for match in _TAG.finditer(if_match)}
    if (if_match == "*" and row is None) or (
        if_match != "*" and aliases_etag(model, row) not in tags
    ):
        raise PreconditionFailed(model, current_aliases(model, row))
