"""Feedback on one answer, taken together: an answer is worth what has been said of it so far.

Feedback is about the same answer when it has the same `response_id`; without one, when the same
user (without one, in the same conversation) says it of the same output to the same prompt.
Anonymous feedback without either stands for itself.

What a person does with an answer takes the place of what a person did with it before; a retraction
takes it away. What a check gave stays until another check gives something else. So a thumb after a
check adds to it, a correction after a thumb replaces it.

Whoever's word stands is whose example it is: a check of an answer that a person spoke of counts as
that person's influence, and goes when that person's feedback is withdrawn.

That holds as long as the answer is in no batch. After that nothing changes what was trained on: the
feedback is recorded as `late`.
"""

from typing import Literal

from services.dataset.ledger.curation import user_of
from shared.events import FeedbackScored, FeedbackType, RewardPart
from shared.identity import identity
from shared.reward import mean_reward
from shared.storage.dataset_entries import DatasetEntry

USER_PARTS = frozenset({"action", "correction"})
"""The parts that say what a person did. All others but `validation` follow from the output itself
and are scored anew each time.
"""


def answer_id_of(event: FeedbackScored) -> str | None:
    """What the answer is called that `event` is about; None when nothing links it to other
    feedback.
    """
    if event.response_id is not None:
        return identity("response", event.response_id)
    who = event.user_id or event.conversation_id
    if who is None:
        return None
    return identity(
        "said",
        who,
        event.output,
        *(part for message in event.messages for part in (message.role, message.content)),
    )


def user_verdict_of(event: FeedbackScored, previous: DatasetEntry | None) -> FeedbackType | None:
    """What a person has last said of the answer, once `event` has come: None when only checks have
    spoken, or it was retracted.
    """
    if event.feedback_type == "validation":
        return previous.word if previous else None
    return None if event.feedback_type == "retracted" else event.feedback_type


def combine_feedback(
    event: FeedbackScored, previous: DatasetEntry | None
) -> FeedbackScored | Literal["late", "corrected"]:
    """`event` with the worth of all that was said of its answer; or why it changes nothing.

    `standing` is the entry of the newest feedback on the answer before, None for the first.
    `corrected`: a check spoke of an output that a person has corrected already; what is learnt is
    the correction, of which it says nothing.
    """
    if previous is None:
        return event
    if previous.batch is not None:
        return "late"
    if event.feedback_type == "validation" and previous.word == "correction":
        return "corrected"
    said = {part.name for part in event.parts}
    kept = [
        part for part in previous.parts if part.name not in said and _still_applies(part, event)
    ]
    parts = (*event.parts, *kept)
    word = user_verdict_of(event, previous)
    checked = any(part.name == "validation" for part in parts)
    return event.model_copy(
        update={
            "parts": parts,
            "reward": mean_reward(parts),
            "feedback_type": word or ("validation" if checked else event.feedback_type),
            "user_id": _attributed_user(event, previous),
        }
    )


def _attributed_user(event: FeedbackScored, previous: DatasetEntry) -> str | None:
    """The user whose word stands once `event` has come."""
    if event.feedback_type == "validation" and previous.word is not None:
        return user_of(previous.influence) or event.user_id
    return event.user_id


def _still_applies(part: RewardPart, event: FeedbackScored) -> bool:
    """Whether what was said before still holds beside `event`."""
    return part.name == "validation" or (
        part.name in USER_PARTS and event.feedback_type == "validation"
    )
