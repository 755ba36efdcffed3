"""Combination of all feedback on one answer.

Events are about the same answer if they have the same `response_id`; without one, if the same user
(without one, the same conversation) rates the same output for the same prompt. Feedback without any
of these IDs is not combined with other feedback.

A user's action on an answer replaces the earlier user action; a retraction removes it. A validation
score stays until another validation replaces it. So a thumb after a validation adds to it, and a
correction after a thumb replaces the thumb.

The example is attributed to the user whose verdict applies: a validation of an answer that a user
rated counts towards that user's limits, and is removed when that user's feedback is withdrawn.

All this applies until the answer is in a batch. After that nothing changes what was trained on: a
correction is an example of its own, for the next batch; other feedback is recorded as `late`.
"""

from typing import Literal

from services.dataset.ledger.curation import user_of
from shared.events import FeedbackScored, FeedbackType, RewardPart
from shared.identity import identity
from shared.reward import mean_reward
from shared.storage.dataset_entries import DatasetEntry

USER_PARTS = frozenset({"action", "correction"})
"""Reward parts that stem from a user's action. All others but `validation` follow from the output
itself and are scored again with each event.
"""


def answer_id_of(event: FeedbackScored) -> str | None:
    """ID of the answer that `event` is about; None if nothing links it to other feedback."""
    if event.response_id is not None:
        return identity("response", event.response_id)
    author = event.user_id or event.conversation_id
    if author is None:
        return None
    return identity(
        "said",
        author,
        event.output,
        *(part for message in event.messages for part in (message.role, message.content)),
    )


def user_verdict_of(event: FeedbackScored, previous: DatasetEntry | None) -> FeedbackType | None:
    """Newest user action on the answer, including `event`; None after validations only, or after a
    retraction.
    """
    if event.feedback_type == "validation":
        return previous.word if previous else None
    return None if event.feedback_type == "retracted" else event.feedback_type


def combine_feedback(
    event: FeedbackScored, previous: DatasetEntry | None
) -> FeedbackScored | Literal["late", "corrected"]:
    """Return `event` with the combined reward of all feedback on its answer, or the reason why it
    changes nothing.

    `previous` is the entry of the newest earlier feedback on the answer, None for the first.
    `corrected`: a validation of an output that a user has already corrected. The correction is
    trained on, and the validation does not rate it.
    """
    if previous is None:
        return event
    if previous.batch is not None:
        return event if event.feedback_type == "correction" else "late"
    if event.feedback_type == "validation" and previous.word == "correction":
        return "corrected"
    own_parts = {part.name for part in event.parts}
    kept = [
        part
        for part in previous.parts
        if part.name not in own_parts and _still_applies(part, event)
    ]
    parts = (*event.parts, *kept)
    verdict = user_verdict_of(event, previous)
    validated = any(part.name == "validation" for part in parts)
    return event.model_copy(
        update={
            "parts": parts,
            "reward": mean_reward(parts),
            "feedback_type": verdict or ("validation" if validated else event.feedback_type),
            "user_id": _attributed_user(event, previous),
        }
    )


def _attributed_user(event: FeedbackScored, previous: DatasetEntry) -> str | None:
    """The user whose verdict applies after `event`."""
    if event.feedback_type == "validation" and previous.word is not None:
        return user_of(previous.influence) or event.user_id
    return event.user_id


def _still_applies(part: RewardPart, event: FeedbackScored) -> bool:
    """True if an earlier reward part stays valid next to those of `event`."""
    return part.name == "validation" or (
        part.name in USER_PARTS and event.feedback_type == "validation"
    )
