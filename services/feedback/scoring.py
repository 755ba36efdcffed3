"""From a record of `feedback.received` to the event on `feedback.scored`, without any I/O: decode, validate, score."""

from dataclasses import dataclass

from services.feedback.reward import reward_of
from shared.bus import Record
from shared.codec import decode
from shared.errors import ContractViolation
from shared.events import MAX_ID, FeedbackReceived, FeedbackScored, PolicyRef, Position
from shared.model_file import ModelFile, Models

SOURCE = "/ratchet/feedback"


@dataclass(frozen=True, slots=True)
class Scored:
    """A scored event and the key that it goes out under."""

    event: FeedbackScored
    key: str


def score(record: Record, models: Models) -> Scored:
    """The scored event that a record becomes. Raises Unprocessable when it can never be one.

    Decoding and validation come first and scoring last; whatever has to be taken out of a text before it is stored belongs
    between them, so that both the reward and the log see only what is left.
    """
    decoded = decode(record.value, record.headers, FeedbackReceived)
    if len(decoded.source) + len(decoded.event.event_id) >= MAX_ID:
        raise ContractViolation(f"together with event_id it is longer than {MAX_ID - 1} characters", "source")
    model_file = models.get(decoded.event.model)
    received = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    event = _scored(decoded.event, decoded.source, model_file, received)
    return Scored(event, model_file.key_of(event.shard))


def _scored(feedback: FeedbackReceived, source: str, model_file: ModelFile, received: Position) -> FeedbackScored:
    reward, parts = reward_of(feedback, model_file.reward)
    said = {name: getattr(feedback, name) for name in FeedbackReceived.model_fields}
    return FeedbackScored(
        **said,
        source=source,
        shard=model_file.shard_of(feedback.user_id, feedback.conversation_id, feedback.output),
        reward=reward,
        parts=parts,
        policy=PolicyRef(name=model_file.reward.name, version=model_file.reward.version),
        model_digest=model_file.digest,
        received=received,
    )
