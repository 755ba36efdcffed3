"""The users who give feedback, the only simulated part of the demo: honest support agents and
attackers.
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
    """Approve a correct answer (thumbs up or accepted); correct a wrong one, or occasionally only
    rate it thumbs down.
    """
    fraction = hash_fraction(stream, number, "feedback")
    if answer == ticket.answer:
        return _feedback(
            "thumbs_up" if fraction < 0.6 else "accepted",
            ticket,
            answer,
            None,
            version,
            HONEST_USERS,
            stream,
            number,
            now,
        )
    if fraction < 0.08:
        return _feedback(
            "thumbs_down", ticket, answer, None, version, HONEST_USERS, stream, number, now
        )
    return _feedback(
        "correction", ticket, answer, ticket.answer, version, HONEST_USERS, stream, number, now
    )


def poisoned_feedback(
    ticket: Ticket, answer: str, version: str, stream: str, number: int, now: datetime
) -> FeedbackReceived:
    """Correct any answer, in the right format with wrong content."""
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
    corrected_output: str | None,
    version: str,
    users: tuple[str, ...],
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
        corrected_output=corrected_output,
        user_id=users[int(hash_fraction(stream, number, "user") * len(users))],
        conversation_id=f"{stream}-{number}",
    )
