"""Withdrawal requests of a user's feedback: pure functions from `UserForgotten` to one request for
each shard.
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

_TYPE_NAME = UserForgotten.type_name().encode()


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request and its Kafka key: that of the shard's feedback, so that it is ordered after all
    earlier feedback of the shard.
    """

    event: WithdrawalRequested
    key: str


def decode_user_forgotten(record: Record) -> Decoded[UserForgotten] | None:
    """Decode a record of `feedback.received` that is a `UserForgotten`; None for feedback, which
    has no event type or one of the application's own. Raises Unprocessable for an invalid one.
    """
    # A search for the bytes first: nearly all records are feedback, which `score` decodes.
    contents = (record.value, *(content for _, content in record.headers))
    if not any(_TYPE_NAME in (content or b"") for content in contents):
        return None
    decoded = decode(
        record.value, record.headers, FeedbackReceived, UserForgotten, default=FeedbackReceived
    )
    if not isinstance(decoded.event, UserForgotten):
        return None
    return Decoded(decoded.event, decoded.source)


def withdrawal_requests(
    forgotten: Decoded[UserForgotten], received: Position, policies: Policies
) -> list[KeyedRequest]:
    """Return one request for each shard of the named model, or of every declared model.

    The same event at the same position gives the same requests. Raises UnknownModel, and
    ContractViolation for an id that is too long.
    """
    event = forgotten.event
    name = feedback_id_of(forgotten.source, event.event_id)
    if len(name) > MAX_ID:
        raise ContractViolation(
            f"together with event_id it is longer than {MAX_ID - 1} characters", "source"
        )
    selected = [policies.get(event.model)] if event.model is not None else list(policies)
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
                # As redacted feedback has it, which may be a pseudonym.
                user_id=policy.redactor.pseudonymize("user", event.user_id),
                forgotten=name,
                received=received,
                reason=event.reason,
            ),
            policy.file.key_of(shard),
        )
        for policy in selected
        for shard in range(policy.file.shards)
    ]
