"""Curation of one scored event on its own: the part of the decision that needs no other event.

    correction                               training, whatever its reward; also a preference pair,
                                             corrected over original
    thumbs up, accepted, passed a check      training if its quality is high enough
    thumbs down, or a reward below 0         negative
    retracted, blank, of low quality,        dropped
    or damaged by redaction

A training example whose prompt falls into the held-out share is held out instead. A negative on
such a prompt, and any example on a prompt of the golden set, is dropped as contaminated: the same
prompt is never on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.config.answer_format import format_check
from shared.config.curation import CurationSettings
from shared.config.model_file import ModelFile
from shared.events import FeedbackScored, Message
from shared.identity import hash_fraction, prompt_identity
from shared.redaction.placeholders import placeholders_in
from shared.redaction.pseudonyms import pseudonym
from shared.storage.dataset_entries import EntryDecision, EntryReason
from shared.storage.snapshots import Example

_POSITIVE = ("thumbs_up", "accepted", "validation")
_USER = "user:"


@dataclass(frozen=True, slots=True)
class CurationResult:
    """A decision with its reason. `example` is None for a dropped event."""

    decision: EntryDecision
    reason: EntryReason
    example: Example | None = None


class RedactionCheck:
    """Finds answers that redaction made unfit for training, by the rules of one model file.

    A placeholder can break the format that the reward policy requires. If the prompt does not have
    it, it cannot be copied: the model would learn to make it up.
    """

    def __init__(self, model_file: ModelFile) -> None:
        self._format_error = format_check(model_file.reward)
        self._trains_new = model_file.redaction.train_new_placeholders

    def reason_to_drop(self, messages: Sequence[Message], answer: str) -> EntryReason | None:
        """Return why not to train on a redacted answer that had the format before redaction."""
        placeholders = placeholders_in(answer)
        if not placeholders:
            return None
        if self._format_error(answer) is not None:
            return "format_redacted"
        if self._trains_new:
            return None
        known = (placeholders_in(message.content) for message in messages)
        return None if placeholders <= frozenset().union(*known) else "new_placeholder"

    def reason_to_drop_event(self, event: FeedbackScored) -> EntryReason | None:
        """Return why not to train on an event's answer. None if it never had the format."""
        had_format = not any(
            part.name == "rules" and "format" in (part.reason or "") for part in event.parts
        )
        if event.feedback_type != "correction" and not had_format:
            return None
        return self.reason_to_drop(event.messages, _answer(event))


def curate(
    event: FeedbackScored,
    policy: CurationSettings,
    golden: frozenset[str],
    redaction: RedactionCheck | None = None,
) -> CurationResult:
    """Decide about `event` as if it were the only one. `golden` holds the identities of the golden
    set's prompts. Without `redaction`, its damage is not looked for.
    """
    decision, reason = _classify(event, policy)
    if decision == "training" and redaction and (damage := redaction.reason_to_drop_event(event)):
        decision, reason = "dropped", damage
    if decision == "dropped":
        return CurationResult(decision, reason)
    prompt = prompt_identity(event.messages)
    match assign_split(decision, prompt, policy.held_out_share, golden):
        case "dropped":
            return CurationResult("dropped", "contaminated")
        case "held_out":
            return CurationResult("held_out", "held_out", _example(event))
        case _:
            return CurationResult(decision, reason, _example(event))


def assign_split(
    decision: EntryDecision, prompt: str, held_out_share: float, golden: frozenset[str]
) -> EntryDecision:
    """Return `held_out` for a training example whose prompt is held out, `dropped` for an example
    that would contaminate the evaluation, else the decision itself.
    """
    held_out = is_held_out(prompt, held_out_share)
    if prompt in golden or (held_out and decision == "negative"):
        return "dropped"
    return "held_out" if held_out else decision


def is_held_out(prompt: str, share: float) -> bool:
    """True if the prompt with this identity is held out. A hash decides, so that a fixed share of
    prompts is held out whatever the order of events.
    """
    return hash_fraction("held-out", prompt) < share


def quality_of(event: FeedbackScored) -> float:
    """Quality of the text to train on, in [0, 1]: 1 for a correction, else the scaled reward."""
    return 1.0 if event.feedback_type == "correction" else (event.reward + 1) / 2


def contributor_of(event: FeedbackScored) -> str | None:
    """Contributor that an event counts towards in limits: its user, else its conversation."""
    if event.user_id is not None:
        return contributor_of_user(event.user_id)
    return f"conversation:{event.conversation_id}" if event.conversation_id is not None else None


def contributor_of_user(user_id: str) -> str:
    """Contributor name of a user."""
    return _USER + user_id


def trusted_contributors(policy: CurationSettings) -> frozenset[str]:
    """Return the contributor names of the trusted users. Redacted feedback may name a user by a
    pseudonym.
    """
    return frozenset(
        contributor_of_user(name)
        for user in policy.trusted_users
        for name in (user, pseudonym("user", user))
    )


def user_of(contributor: str | None) -> str | None:
    """User ID of a contributor; None for a conversation or no contributor."""
    return (
        contributor.removeprefix(_USER)
        if contributor is not None and contributor.startswith(_USER)
        else None
    )


def _classify(event: FeedbackScored, policy: CurationSettings) -> tuple[EntryDecision, EntryReason]:
    if event.feedback_type == "retracted":
        return "dropped", "retracted"
    if not _answer(event).strip():
        return "dropped", "empty"
    if event.feedback_type == "correction":
        return "training", "correction"
    if event.feedback_type == "thumbs_down" or event.reward < 0:
        return "negative", "low_reward"
    if event.feedback_type in _POSITIVE and quality_of(event) >= policy.minimum_quality:
        return "training", "approved"
    return "dropped", "low_quality"


def _answer(event: FeedbackScored) -> str:
    return event.corrected_output or "" if event.feedback_type == "correction" else event.output


def _example(event: FeedbackScored) -> Example:
    answer = _answer(event)
    return Example(
        feedback_id=event.identity,
        messages=event.messages,
        answer=answer,
        rejected=event.output
        if event.feedback_type == "correction" and event.output.strip() not in ("", answer.strip())
        else None,
        feedback_type=event.feedback_type,
        reward=event.reward,
        quality=quality_of(event),
        model_version=event.model_version,
        user_id=event.user_id,
        comment=event.comment,
    )
