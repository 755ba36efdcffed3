"""Comparisons of versions' answers to one prompt, and the feedback that a vote on them becomes.

A vote is a person's judgement of answers, and ordinary feedback of that person: the limits on a
user's influence apply. It names no `model_version`, because the canary trial and the live monitor
compare versions by what users say about served answers; the version is in the tags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.registry.store.audit_queries import operator_of
from services.registry.store.database import Session
from services.registry.store.outbox import enqueue
from services.registry.store.queries import delete_comparisons, lock_comparison
from services.registry.store.tables import ComparisonRow
from shared.errors import RatchetError
from shared.events import FeedbackReceived, FeedbackType
from shared.identity import identity

KEPT = timedelta(days=1)
"""Age from which a comparison is deleted; prompts may hold personal data."""

NONE_GOOD = "none"
"""Choice of a voter who finds no answer good."""

UNNAMED = "operator"
"""Voter whose token names no owner."""


class UnknownComparison(RatchetError):
    """The model has no comparison with this id, or no longer."""


class VoteRefused(RatchetError):
    """The vote is not possible; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The chosen answer, by its number in the comparison, or `NONE_GOOD`; and a better answer, if
    the voter wrote one.
    """

    choice: str
    correction: str = ""


def shuffled(versions: Sequence[str], comparison_id: str) -> list[str]:
    """Return versions in an order that only the random id of the comparison determines."""
    return sorted(versions, key=lambda version: identity("order", comparison_id, version))


def add_comparison(
    session: Session,
    comparison_id: str,
    model: str,
    prompt: str,
    answers: Mapping[str, str],
    blind: bool,
    now: datetime,
) -> None:
    """Store answers by version, in the order in which they are shown. Deletes old comparisons."""
    delete_comparisons(session, now - KEPT)
    session.add(
        ComparisonRow(
            comparison_id=comparison_id,
            model=model,
            prompt=prompt,
            answers=[{"version": version, "answer": answer} for version, answer in answers.items()],
            blind=blind,
            created_at=now,
            choice=None,
            voter=None,
        )
    )


def require_comparison(session: Session, model: str, comparison_id: str) -> ComparisonRow:
    """Return a comparison, locked until the transaction ends. Raises UnknownComparison."""
    row = lock_comparison(session, comparison_id)
    if row is None or row.model != model:
        days = KEPT.days
        raise UnknownComparison(
            f"{model} has no such comparison; they are deleted after {days} day, ask again"
        )
    return row


def record_vote(
    session: Session, model: str, comparison_id: str, vote: Vote, now: datetime
) -> list[FeedbackReceived]:
    """Record the one vote on a comparison, and enqueue it as feedback. Raises UnknownComparison or
    VoteRefused.
    """
    row = require_comparison(session, model, comparison_id)
    if row.choice is not None:
        raise VoteRefused("there is a vote on this comparison already; ask again for another one")
    row.choice, row.voter = vote.choice, operator_of(session) or UNNAMED
    events = feedback_of(row, vote, now)
    enqueue(session, events, now)
    return events


def feedback_of(row: ComparisonRow, vote: Vote, now: datetime) -> list[FeedbackReceived]:
    """Return the feedback of a vote. Raises VoteRefused for an unknown choice.

    A chosen answer is good, or else what the voter wrote corrects it. That another one was chosen
    does not make an answer bad: only `NONE_GOOD` does. A correction then is of the first answer.
    """

    def feedback(
        number: int, kind: FeedbackType, correction: str | None = None
    ) -> FeedbackReceived:
        answer = row.answers[number]
        return FeedbackReceived(
            event_id=identity("vote", row.comparison_id, number),
            occurred_at=now,
            model=row.model,
            input=row.prompt,
            output=answer["answer"],
            feedback_type=kind,
            corrected_output=correction,
            user_id=row.voter,
            conversation_id=f"playground {row.comparison_id}",
            response_id=f"playground {row.comparison_id} {number}",
            tags={"source": "playground", "version": answer["version"]},
        )

    numbers = range(len(row.answers))
    if vote.choice == NONE_GOOD:
        return [
            feedback(number, "correction", vote.correction)
            if vote.correction and number == 0
            else feedback(number, "thumbs_down")
            for number in numbers
        ]
    if vote.choice not in map(str, numbers):
        raise VoteRefused("choose one of the answers, or that none of them is good")
    chosen = int(vote.choice)
    if vote.correction and vote.correction != row.answers[chosen]["answer"]:
        return [feedback(chosen, "correction", vote.correction)]
    return [feedback(chosen, "thumbs_up")]
