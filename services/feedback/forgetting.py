"""From a user who is to be forgotten to requests on `feedback.scored`, one for each shard, without any I/O."""

from dataclasses import dataclass

from shared.bus import Record
from shared.codec import Decoded, decode
from shared.errors import ContractViolation
from shared.events import MAX_ID, FeedbackReceived, Position, UserForgotten, WithdrawalRequested, identity_of
from shared.identity import identity
from shared.model_file import ModelFile, Models

_NAME = UserForgotten.type_name().encode()


@dataclass(frozen=True, slots=True)
class Request:
    """A request and the key that it goes out under: that of the shard's feedback, so that it stands behind all that came before it."""

    event: WithdrawalRequested
    key: str


def user_forgotten(record: Record) -> Decoded[UserForgotten] | None:
    """The `UserForgotten` that a record of `feedback.received` says; None for feedback, which names no type or one of the
    application's. Raises Unprocessable when it is said wrongly."""
    # Looked for as bytes first: all but a few records are feedback, which is decoded where it is scored.
    if not any(_NAME in (said or b"") for said in (record.value, *(content for _, content in record.headers))):
        return None
    decoded = decode(record.value, record.headers, FeedbackReceived, UserForgotten, otherwise=FeedbackReceived)
    return Decoded(decoded.event, decoded.source) if isinstance(decoded.event, UserForgotten) else None


def withdrawal_requests(forgotten: Decoded[UserForgotten], received: Position, models: Models) -> list[Request]:
    """One for each shard of the model that is named, or of every declared one. The same event at the same place makes the same requests.
    Raises UnknownModel, and ContractViolation for an id that is too long."""
    event = forgotten.event
    name = identity_of(forgotten.source, event.event_id)
    if len(name) > MAX_ID:
        raise ContractViolation(f"together with event_id it is longer than {MAX_ID - 1} characters", "source")
    chosen = [models.get(event.model)] if event.model is not None else list(models.files.values())
    return [
        Request(
            WithdrawalRequested(
                event_id=identity("withdrawal", name, received.partition, received.offset, model_file.model, shard),
                occurred_at=event.occurred_at,
                model=model_file.model,
                shard=shard,
                user_id=stored_user_id(event.user_id, model_file),
                forgotten=name,
                received=received,
                reason=event.reason,
            ),
            model_file.key_of(shard),
        )
        for model_file in chosen
        for shard in range(model_file.shards)
    ]


def stored_user_id(user_id: str, model_file: ModelFile) -> str:
    """What a user is called in a model's feedback once it is scored. The one place to change with what scoring does to user ids."""
    return user_id
