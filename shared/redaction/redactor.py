"""Redaction of an event: placeholders in its texts, pseudonyms for its identifiers; or of texts
alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from shared.config.redaction_policy import PersonalDataKind, RedactionPolicy
from shared.events import FeedbackReceived, Message
from shared.redaction.addresses import find_emails, find_ips
from shared.redaction.allowed_values import AllowedValues
from shared.redaction.payment_numbers import find_cards, find_ibans
from shared.redaction.phones import PhoneFinder
from shared.redaction.pii_match import Finder, PiiKind
from shared.redaction.placeholders import Placeholders
from shared.redaction.plain_text import FindPii, find_pii, redact_text
from shared.redaction.pseudonyms import Identifier, pseudonym
from shared.redaction.secret_shapes.finder import find_secrets
from shared.redaction.structured_text import replace_structured

# In order of execution: unmistakable patterns first, telephone numbers last.
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
    """Redacted feedback and CloudEvents source, with the number of replaced matches by kind."""

    feedback: FeedbackReceived
    source: str
    counts: Mapping[PiiKind, int]


@dataclass(frozen=True, slots=True)
class RedactedTexts:
    """Redacted texts, in their order, with the number of replaced matches by kind."""

    texts: Sequence[str]
    counts: Mapping[PiiKind, int]


@dataclass(frozen=True, slots=True)
class _Event:
    """Search in the texts of one event: without the allowed values, and for all personal data.
    `are_clean` is true for texts without any but allowed ones.
    """

    find: FindPii
    find_all: FindPii
    are_clean: bool


class Redactor:
    """Applies one model's policy. `find_names` is used if the policy redacts names."""

    def __init__(self, policy: RedactionPolicy, find_names: Finder | None = None) -> None:
        self._finders = tuple(find for kind, find in _FINDERS.items() if kind in policy.kinds)
        self._regions = policy.regions if "phone" in policy.kinds else None
        self._find_names = find_names if policy.names else None
        self._allowed = AllowedValues(policy.allow, policy.regions) if policy.allow else None

    def redact(self, feedback: FeedbackReceived, source: str = "") -> RedactedFeedback:
        """Redact the input, both outputs, the comment and the values of tags. Idempotent; without
        a match it returns the same object.

        An identifier that contains personal data is replaced as a whole, because limits on
        influence and withdrawal need one identifier for one user.
        """
        texts = _texts(feedback)
        identifiers = {
            identifier: value
            for identifier, field in _IDENTIFIERS.items()
            if (value := getattr(feedback, field)) is not None
        }
        event = self._event(texts)
        # The list of allowed values is for texts: the identifier of a person stays a pseudonym.
        if event.are_clean and _is_clean(
            "\n".join([*identifiers.values(), source]), event.find_all
        ):
            return RedactedFeedback(feedback, source, {})
        placeholders = Placeholders(texts)
        redacted = [_redact_text(text, event.find, placeholders) for text in texts]
        changes = _with_texts(feedback, redacted) if redacted != texts else {}
        changes |= {
            _IDENTIFIERS[identifier]: _pseudonymize(identifier, value, event.find_all, placeholders)
            for identifier, value in identifiers.items()
        }
        source = _pseudonymize("source", source, event.find_all, placeholders)
        return RedactedFeedback(feedback.model_copy(update=changes), source, placeholders.counts)

    def redact_texts(self, texts: Sequence[str]) -> RedactedTexts:
        """Redact texts that belong together, such as the turns of a conversation: equal values get
        the same placeholder. Idempotent.
        """
        event = self._event(texts)
        if event.are_clean:
            return RedactedTexts(texts, {})
        placeholders = Placeholders(texts)
        redacted = [_redact_text(text, event.find, placeholders) for text in texts]
        return RedactedTexts(redacted, placeholders.counts)

    def pseudonymize(self, identifier: Identifier, value: str) -> str:
        """Return an identifier as redacted feedback has it: unchanged, or its pseudonym."""
        return _pseudonymize(identifier, value, self._event(()).find_all, Placeholders(()))

    def _event(self, texts: Sequence[str]) -> "_Event":
        phones = (PhoneFinder(self._regions),) if self._regions is not None else ()
        names = (self._find_names,) if self._find_names is not None else ()
        finders = (*self._finders, *phones, *names)
        find_all = cache(partial(find_pii, finders=finders))
        find = find_all
        if (allowed := self._allowed) is not None:
            find = cache(partial(find_pii, finders=finders, allowed=allowed))
        # Most events have no match, so one pass over the joined texts is enough for them. It also
        # finds the digits that are a telephone number in one of the texts, and so in all. Names
        # depend on their context.
        whole = "\n".join(texts)
        if self._find_names is None:
            return _Event(find, find_all, are_clean=_is_clean(whole, find))
        find_pii(whole, phones)
        return _Event(find, find_all, are_clean=False)


def _texts(feedback: FeedbackReceived) -> list[str]:
    tags = (feedback.tags or {}).values()
    return [
        *(message.content for message in feedback.messages),
        feedback.output,
        feedback.corrected_output or "",
        feedback.comment or "",
        *tags,
    ]


def _with_texts(feedback: FeedbackReceived, texts: Sequence[str]) -> dict[str, Any]:
    """Return the fields of an event with other texts, in the order of `_texts`."""
    remaining = iter(texts)
    contents = [next(remaining) for _ in feedback.messages]
    if isinstance(feedback.input, str):
        new_input: str | tuple[Message, ...] = contents[0]
    else:
        new_input = tuple(
            Message(role=message.role, content=content)
            for message, content in zip(feedback.input, contents, strict=True)
        )
    return {
        "input": new_input,
        "output": next(remaining),
        "corrected_output": next(remaining) or None,
        "comment": next(remaining) or None,
        "tags": None if feedback.tags is None else dict(zip(feedback.tags, remaining, strict=True)),
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
    matches = find(value)
    # Some applications number their events, and such a number may be a valid telephone number.
    if not matches or (identifier == "event" and value.isdecimal()):
        return value
    placeholders.counts.update(match.kind for match in matches)
    return pseudonym(identifier, value)
