"""Personal data in an event: placeholders in what people and models wrote, pseudonyms for
identifiers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from services.feedback.redaction.addresses import find_emails, find_ips
from services.feedback.redaction.payment_numbers import find_cards, find_ibans
from services.feedback.redaction.phones import PhoneFinder
from services.feedback.redaction.pii_match import Finder, PiiKind
from services.feedback.redaction.placeholders import Placeholders
from services.feedback.redaction.plain_text import FindPii, find_pii, redact_text
from services.feedback.redaction.pseudonyms import Identifier, pseudonym
from services.feedback.redaction.secret_tokens import find_secrets
from services.feedback.redaction.structured_text import replace_structured
from shared.config.redaction_policy import PersonalDataKind, RedactionPolicy
from shared.events import FeedbackReceived, Message

# In the order in which they look: what has a shape that nothing else has comes first, telephone
# numbers last.
_FINDERS: dict[PersonalDataKind, Finder] = {
    "secret": find_secrets,
    "email": find_emails,
    "ip": find_ips,
    "iban": find_ibans,
    "card": find_cards,
}
_IDENTIFIERS: dict[Identifier, str] = {
    "user": "user_id",
    "conversation": "conversation_id",
    "response": "response_id",
    "event": "event_id",
}
_HIDING_ESCAPE = re.compile(r"\\[u/]")


@dataclass(frozen=True, slots=True)
class RedactedFeedback:
    """What is left of some feedback, with the CloudEvents source that it came with, and how many
    pieces of each kind were replaced.
    """

    feedback: FeedbackReceived
    source: str
    counts: Mapping[PiiKind, int]


class Redactor:
    """Applies one model's policy. `find_names` finds people and places where the policy asks for
    them.
    """

    def __init__(self, policy: RedactionPolicy, find_names: Finder | None = None) -> None:
        self._finders = tuple(find for kind, find in _FINDERS.items() if kind in policy.kinds)
        self._regions = policy.regions if "phone" in policy.kinds else None
        self._find_names = find_names if policy.names else None

    def redact(self, feedback: FeedbackReceived, source: str = "") -> RedactedFeedback:
        """The feedback without the personal data that was found; itself where none was. Doing it
        again changes nothing.

        Texts are the input, both outputs and the values of tags. An identifier that contains
        personal data is replaced as a whole, since limits on influence and withdrawal need it to
        stay one.
        """
        find = cache(partial(find_pii, finders=self._event_finders()))
        texts = _texts(feedback)
        identifiers = {
            identifier: value
            for identifier, field in _IDENTIFIERS.items()
            if (value := getattr(feedback, field)) is not None
        }
        # Most events hold none; one look at all that they say is enough then. Names are another
        # matter: they depend on what is around them.
        if self._find_names is None and _is_clean(
            "\n".join([*texts, *identifiers.values(), source]), find
        ):
            return RedactedFeedback(feedback, source, {})
        placeholders = Placeholders(texts)
        left = [_redact_text(text, find, placeholders) for text in texts]
        changes = _with_texts(feedback, left) if left != texts else {}
        changes |= {
            _IDENTIFIERS[identifier]: _pseudonymize(identifier, value, find, placeholders)
            for identifier, value in identifiers.items()
        }
        source = _pseudonymize("source", source, find, placeholders)
        return RedactedFeedback(feedback.model_copy(update=changes), source, placeholders.counts)

    def pseudonymize(self, identifier: Identifier, value: str) -> str:
        """What an identifier is called in redacted feedback: itself, or its pseudonym."""
        return _pseudonymize(
            identifier,
            value,
            partial(find_pii, finders=self._event_finders()),
            Placeholders(()),
        )

    def _event_finders(self) -> tuple[Finder, ...]:
        phones = (PhoneFinder(self._regions),) if self._regions is not None else ()
        names = (self._find_names,) if self._find_names is not None else ()
        return (*self._finders, *phones, *names)


def _texts(feedback: FeedbackReceived) -> list[str]:
    tags = (feedback.tags or {}).values()
    return [
        *(message.content for message in feedback.messages),
        feedback.output,
        feedback.corrected_output or "",
        *tags,
    ]


def _with_texts(feedback: FeedbackReceived, texts: Sequence[str]) -> dict[str, Any]:
    """The fields that `texts`, in the order of `_texts`, stand in."""
    left = iter(texts)
    contents = [next(left) for _ in feedback.messages]
    return {
        "input": contents[0]
        if isinstance(feedback.input, str)
        else tuple(
            Message(role=message.role, content=content)
            for message, content in zip(feedback.input, contents, strict=True)
        ),
        "output": next(left),
        "corrected_output": next(left) or None,
        "tags": None if feedback.tags is None else dict(zip(feedback.tags, left, strict=True)),
    }


def _is_clean(text: str, find: FindPii) -> bool:
    return not find(text) and not _HIDING_ESCAPE.search(text)


def _redact_text(text: str, find: FindPii, placeholders: Placeholders) -> str:
    if _is_clean(text, find):
        return text
    return replace_structured(text, partial(redact_text, find=find, placeholders=placeholders))


def _pseudonymize(
    identifier: Identifier, value: str, find: FindPii, placeholders: Placeholders
) -> str:
    found = find(value)
    # An application counts its events, and such a number may happen to be a telephone's.
    if not found or (identifier == "event" and value.isdecimal()):
        return value
    placeholders.counts.update(hit.kind for hit in found)
    return pseudonym(identifier, value)
