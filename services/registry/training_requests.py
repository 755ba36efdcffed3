"""Training requests of operators: recorded with an audit entry and an event for the builder, then
updated by its answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.registry.store.audit_queries import add_audit_entry, operator_of
from services.registry.store.database import Session
from services.registry.store.tables import TrainingRequestRow
from shared.errors import RatchetError
from shared.events import Artefact, TrainingRequestAnswered, TrainingRequested, UploadedFile
from shared.events.hyperparameters import HyperparameterValue, Lane

ACTOR = "operator"
ACTION = "request_training"

WAITING = "waiting"
"""State of a request without an answer; the other states are those of the answers."""


class UnknownTrainingRequest(RatchetError):
    """The model has no training request with this id."""


class TrainingRequestRefused(RatchetError):
    """The request cannot be carried out; nothing was recorded."""


class UploadTooLarge(RatchetError):
    """The file has more bytes than the limit."""


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request that passed all checks of the registry. `dataset` is the ID of the imported
    dataset, None for a file; `fingerprint` identifies the HTTP request.
    """

    request_id: str
    model: str
    lane: Lane
    data: Artefact
    dataset: str | None
    file: UploadedFile | None
    hyperparameters: Mapping[str, HyperparameterValue]
    reason: str
    fingerprint: str


def request_training(session: Session, new: NewRequest, now: datetime) -> TrainingRequested:
    """Record a request, audit it, and return its event."""
    operator, name = operator_of(session), new.file.name if new.file else None
    values = {key: _plain(value) for key, value in sorted(new.hyperparameters.items())}
    session.add(
        TrainingRequestRow(
            request_id=new.request_id,
            model=new.model,
            lane=new.lane,
            dataset=new.dataset,
            file=name,
            hyperparameters=values,
            operator=operator,
            reason=new.reason,
            fingerprint=new.fingerprint,
            state=WAITING,
            detail="",
            batch_id=None,
            counts=None,
            requested_at=now,
            updated_at=now,
        )
    )
    evidence = {
        "request_id": new.request_id,
        "lane": new.lane,
        "dataset": new.dataset,
        "file": name,
        "digest": new.data.digest,
        "hyperparameters": values,
    }
    add_audit_entry(session, new.model, ACTOR, ACTION, new.reason, now, evidence)
    return TrainingRequested(
        event_id=new.request_id,
        occurred_at=now,
        request_id=new.request_id,
        model=new.model,
        lane=new.lane,
        data=new.data,
        file=new.file,
        hyperparameters=dict(new.hyperparameters) or None,
        requested_by=operator,
        reason=new.reason,
    )


def record_answer(session: Session, answer: TrainingRequestAnswered, now: datetime) -> None:
    """Record the state of a request. A repeated or late answer changes no final state, except that
    an announced batch is never refused.
    """
    row = session.get(TrainingRequestRow, answer.request_id)
    if row is None or row.model != answer.model or row.state == "announced":
        return
    if row.state == "refused" and answer.state != "announced":
        return
    row.state, row.detail, row.updated_at = answer.state, answer.detail, now
    row.batch_id = answer.batch_id
    row.counts = answer.counts.model_dump() if answer.counts else None


def _plain(value: HyperparameterValue) -> bool | int | float | str | list[str]:
    return list(value) if isinstance(value, tuple) else value
