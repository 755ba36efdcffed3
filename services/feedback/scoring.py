"""From a record of `feedback.received` to the event on `feedback.scored`, without any I/O: decode,
validate, redact, score.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from services.feedback.redaction.pii_match import Finder, PiiKind
from services.feedback.redaction.redactor import RedactedFeedback, Redactor
from services.feedback.reward import reward_parts
from services.feedback.rules import Rule, broken_rules
from shared.config.answer_format import format_check
from shared.config.model_file import ModelFile, Models
from shared.errors import ContractViolation
from shared.events import MAX_ID, Digest, FeedbackReceived, FeedbackScored, PolicyRef, Position
from shared.messaging.bus import Record
from shared.messaging.codec import Decoded, decode
from shared.reward import mean_reward

SOURCE = "/ratchet/feedback"


@dataclass(frozen=True, slots=True)
class ScoredFeedback:
    """A scored event, the key that it goes out under, and how many pieces of personal data were
    taken out of it.
    """

    event: FeedbackScored
    key: str
    redactions: Mapping[PiiKind, int]


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """What a model's file says of its feedback, made ready once."""

    file: ModelFile
    digest: Digest
    format_error: Callable[[str], str | None]
    redactor: Redactor


class Policies:
    """How the feedback for each declared model is redacted and scored. `find_names` is for those
    that ask for it.
    """

    def __init__(self, models: Models, find_names: Finder | None = None) -> None:
        self._models = models
        self._policies = {
            name: ModelPolicy(
                file, file.digest, format_check(file.reward), Redactor(file.redaction, find_names)
            )
            for name, file in models.files.items()
        }

    def __iter__(self) -> Iterator[ModelPolicy]:
        return iter(self._policies.values())

    def get(self, model: str) -> ModelPolicy:
        """Raises UnknownModel when no file declares it."""
        return self._policies[self._models.get(model).model]


def score(record: Record, policies: Policies) -> ScoredFeedback:
    """The scored event that a record becomes. Raises Unprocessable when it can never be one.

    Rules, format among them, are about the answer as it was given: a placeholder need not fit a
    schema. All else is computed on what redaction left, so that an event can be recomputed from
    itself.
    """
    decoded = decode(record.value, record.headers, FeedbackReceived)
    said, policy = decoded.event, validated_policy(decoded, policies)
    broken = broken_rules(said, policy.format_error)
    redacted = policy.redactor.redact(said, decoded.source)
    received = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    event = _build_event(redacted, broken, policy, received)
    return ScoredFeedback(event, policy.file.key_of(event.shard), redacted.counts)


def validated_policy(decoded: Decoded[FeedbackReceived], policies: Policies) -> ModelPolicy:
    """The policy by which feedback that keeps to its contract is scored. Raises Unprocessable when
    it can never be.
    """
    said = decoded.event
    if len(decoded.source) + len(said.event_id) >= MAX_ID:
        raise ContractViolation(
            f"together with event_id it is longer than {MAX_ID - 1} characters", "source"
        )
    policy = policies.get(said.model)
    _check_correction_format(said, policy)
    return policy


def _check_correction_format(feedback: FeedbackReceived, policy: ModelPolicy) -> None:
    """A correction is learnt word for word; one in another format than the policy demands would
    teach that.
    """
    if feedback.feedback_type == "correction" and feedback.corrected_output is not None:
        fault = policy.format_error(feedback.corrected_output)
        if fault is not None:
            reward = policy.file.reward
            raise ContractViolation(
                f"{fault}, and would be learnt (reward policy {reward.name!r}, version "
                f"{reward.version})",
                "corrected_output",
            )


def _build_event(
    redacted: RedactedFeedback, broken: tuple[Rule, ...], policy: ModelPolicy, received: Position
) -> FeedbackScored:
    feedback, reward = redacted.feedback, policy.file.reward
    parts = reward_parts(feedback, broken, reward)
    left = {name: getattr(feedback, name) for name in FeedbackReceived.model_fields}
    return FeedbackScored(
        **left,
        source=redacted.source,
        shard=policy.file.shard_of(feedback.user_id, feedback.conversation_id, feedback.output),
        reward=mean_reward(parts),
        parts=parts,
        policy=PolicyRef(name=reward.name, version=reward.version),
        model_digest=policy.digest,
        received=received,
    )
