"""From a user who is to be forgotten to requests on `feedback.scored`, one for each shard, without
any I/O.
"""

from dataclasses import dataclass

from services.feedback.scoring import Policies
from shared.errors import ContractViolation
from shared.events import (
    MAX_ID,
    FeedbackReceived,
    Position,
    UserForgotten,
    WithdrawalRequested,
    feedback_id_of,
)
from shared.identity import identity
from shared.messaging.bus import Record
from shared.messaging.codec import Decoded, decode

_NAME = UserForgotten.type_name().encode()


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request and the key that it goes out under: that of the shard's feedback, so that it stands
    behind all that came before it.
    """

    event: WithdrawalRequested
    key: str


def decode_user_forgotten(record: Record) -> Decoded[UserForgotten] | None:
    """The `UserForgotten` that a record of `feedback.received` says; None for feedback, which names
    no type or one of the application's. Raises Unprocessable when it is said wrongly.
    """
    # Looked for as bytes first: all but a few records are feedback, which is decoded where it is
    # scored.
    if not any(
        _NAME in (said or b"")
        for said in (record.value, *(content for _, content in record.headers))
    ):
        return None
    decoded = decode(
        record.value, record.headers, FeedbackReceived, UserForgotten, default=FeedbackReceived
    )
    return (
        Decoded(decoded.event, decoded.source) if isinstance(decoded.event, UserForgotten) else None
    )


def withdrawal_requests(
    forgotten: Decoded[UserForgotten], received: Position, policies: Policies
) -> list[KeyedRequest]:
    """One for each shard of the model that is named, or of every declared one. The same event at
    the same place makes the same requests. Raises UnknownModel, and ContractViolation for an id
    that is too long.
    """
    event = forgotten.event
    name = feedback_id_of(forgotten.source, event.event_id)
    if len(name) > MAX_ID:
        raise ContractViolation(
            f"together with event_id it is longer than {MAX_ID - 1} characters", "source"
        )
    chosen = [policies.get(event.model)] if event.model is not None else list(policies)
    return [
        KeyedRequest(
            WithdrawalRequested(
                event_id=identity(
                    "withdrawal",
                    name,
                    received.partition,
                    received.offset,
                    policy.file.model,
                    shard,
                ),
                occurred_at=event.occurred_at,
                model=policy.file.model,
                shard=shard,
                # As it stands in the model's feedback, which may be a pseudonym.
                user_id=policy.redactor.pseudonymize("user", event.user_id),
                forgotten=name,
                received=received,
                reason=event.reason,
            ),
            policy.file.key_of(shard),
        )
        for policy in chosen
        for shard in range(policy.file.shards)
    ]
