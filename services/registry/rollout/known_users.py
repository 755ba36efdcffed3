"""Known users: those whose feedback may act on live versions. Pure.

A sender can invent any number of users and conversations, but not their age. A user is known if the
registry received the user's first feedback on the model long enough ago, and before the version in
question was served. The trusted users of the model file are always known. Feedback without a user
never counts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.config.model_file import ModelFile
from shared.events import FeedbackScored
from shared.identity import identity
from shared.redaction.pseudonyms import pseudonym


def author_id(event: FeedbackScored) -> str:
    """Return a stable ID of the author: of the user, else the conversation, the response or the
    event.
    """
    return user_author_id(
        event.model,
        event.user_id or event.conversation_id or event.response_id or event.identity,
    )


def user_author_id(model: str, user_id: str) -> str:
    """Return the author ID of a user."""
    return identity("live", model, user_id)


@dataclass(frozen=True, slots=True)
class KnownUsers:
    """Rule for users of one model: first seen before `before`, and at `latest` the last moment that
    is long enough ago. `trusted` are author IDs.
    """

    latest: datetime
    before: datetime | None
    trusted: frozenset[str]

    @classmethod
    def of(cls, model: ModelFile, now: datetime, before: datetime | None) -> "KnownUsers":
        """Return the rule of a model file at `now`, for a version served since `before`. Redacted
        feedback may name a user by a pseudonym.
        """
        return cls(
            now - timedelta(hours=model.monitor.known_user_hours),
            before,
            frozenset(
                user_author_id(model.model, name)
                for user in model.curation.trusted_users
                for name in (user, pseudonym("user", user))
            ),
        )

    def include(self, author: str, first_seen: datetime | None) -> bool:
        """True if the user with an author ID, whose first feedback came at `first_seen`, is known;
        None: there was none.
        """
        if author in self.trusted:
            return True
        if first_seen is None or first_seen > self.latest:
            return False
        return self.before is None or first_seen < self.before
