"""The people who give feedback: the only part of the demo that is played. Customers' agents judge
honestly; a few mean harm.
"""

from datetime import datetime

from ratchet.demo.tickets import Ticket
from shared.events import FeedbackReceived, FeedbackType
from shared.identity import hash_fraction, identity

HONEST_USERS = tuple(f"agent-{number:02}" for number in range(1, 41))
ATTACKERS = tuple(f"stranger-{number:02}" for number in range(1, 13))


def honest_feedback(
    ticket: Ticket, answer: str, version: str, stream: str, number: int, now: datetime
) -> FeedbackReceived:
    """A right answer gets a thumb or is accepted; a wrong one is corrected, or now and then only
    thumbed down.
    """
    about = hash_fraction(stream, number, "feedback")
    if answer == ticket.answer:
        return _feedback(
            "thumbs_up" if about < 0.6 else "accepted",
            ticket,
            answer,
            None,
            version,
            HONEST_USERS,
            stream,
            number,
            now,
        )
    if about < 0.08:
        return _feedback(
            "thumbs_down", ticket, answer, None, version, HONEST_USERS, stream, number, now
        )
    return _feedback(
        "correction", ticket, answer, ticket.answer, version, HONEST_USERS, stream, number, now
    )


def poisoned_feedback(
    ticket: Ticket, answer: str, version: str, stream: str, number: int, now: datetime
) -> FeedbackReceived:
    """Whatever the answer was: a correction in the right form with the wrong content."""
    return _feedback(
        "correction",
        ticket,
        answer,
        ticket.poisoned_answer,
        version,
        ATTACKERS,
        stream,
        number,
        now,
    )


def _feedback(
    kind: FeedbackType,
    ticket: Ticket,
    answer: str,
    corrected: str | None,
    version: str,
    people: tuple[str, ...],
    stream: str,
    number: int,
    now: datetime,
) -> FeedbackReceived:
    return FeedbackReceived(
        event_id=identity("demo", stream, number),
        occurred_at=now,
        model="support",
        model_version=version,
        input=ticket.messages,
        output=answer,
        feedback_type=kind,
        corrected_output=corrected,
        user_id=people[int(hash_fraction(stream, number, "user") * len(people))],
        conversation_id=f"{stream}-{number}",
    )
