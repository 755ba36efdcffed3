"""Scoring: pure functions from a record of `feedback.received` to the event on `feedback.scored`.

The steps are decode, separate the reasoning, validate, redact, score.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.feedback.reward import reward_parts
from services.feedback.rules import Rule, broken_rules
from shared.config.answer_format import format_check
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import ContractViolation
from shared.events import MAX_ID, Digest, FeedbackReceived, FeedbackScored, PolicyRef, Position
from shared.messaging.bus import Record
from shared.messaging.codec import Decoded, decode
from shared.messaging.reasoning import messages_without_reasoning, without_reasoning
from shared.redaction.pii_match import Finder, PiiKind
from shared.redaction.redactor import RedactedFeedback, Redactor
from shared.reward import mean_reward

SOURCE = "/ratchet/feedback"

_USER_ACTIONS = ("thumbs_up", "thumbs_down", "accepted", "regenerated")


@dataclass(frozen=True, slots=True)
class ScoredFeedback:
    """A scored event, its Kafka key, and the number of redacted matches by kind."""

    event: FeedbackScored
    key: str
    redactions: Mapping[PiiKind, int]


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """A model's file, with its digest, format check and redactor prepared once."""

    file: ModelFile
    digest: Digest
    format_error: Callable[[str], str | None]
    redactor: Redactor


class Policies:
    """The policy of each declared model. `find_names` serves models that redact names."""

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
        """Return the policy of a model. Raises UnknownModel for an undeclared one."""
        return self._policies[self._models.get(model).model]


def score(record: Record, policies: Policies) -> ScoredFeedback:
    """Return the scored event of a record. Raises Unprocessable for a permanent error.

    Rules, including the format, apply to the answer before redaction: a placeholder need not fit a
    schema. Everything else is computed after redaction, so that it can be recomputed from the
    event.
    """
    decoded = decode(record.value, record.headers, FeedbackReceived)
    feedback, policy = validated_feedback(decoded, policies)
    broken = broken_rules(feedback, policy.format_error)
    redacted = policy.redactor.redact(feedback, decoded.source)
    received = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    event = _build_event(redacted, broken, policy, received)
    return ScoredFeedback(event, policy.file.key_of(event.shard), redacted.counts)


def validated_feedback(
    decoded: Decoded[FeedbackReceived], policies: Policies
) -> tuple[FeedbackReceived, ModelPolicy]:
    """Validate decoded feedback; return it as it counts, with its model's policy. Raises
    Unprocessable.
    """
    feedback = decoded.event
    if len(decoded.source) + len(feedback.event_id) >= MAX_ID:
        raise ContractViolation(
            f"together with event_id it is longer than {MAX_ID - 1} characters", "source"
        )
    policy = policies.get(feedback.model)
    _check_length(feedback, policy.file.curation.longest_text)
    if policy.file.thinking == "drop":
        feedback = _without_reasoning(feedback)
    feedback = _as_correction(feedback, policy)
    _check_correction_format(feedback, policy)
    return feedback, policy


def _check_length(feedback: FeedbackReceived, longest: int | None) -> None:
    """Raise ContractViolation for a text that is longer than the model file allows."""
    if longest is None:
        return
    lengths = {
        "input": sum(len(message.content) for message in feedback.messages),
        "output": len(feedback.output),
        "corrected_output": len(feedback.corrected_output or ""),
    }
    for field, length in lengths.items():
        if length > longest:
            raise ContractViolation(
                f"has {length} characters; send at most {longest}, or raise curation.longest_text "
                "in the model file",
                field,
            )


def _without_reasoning(feedback: FeedbackReceived) -> FeedbackReceived:
    """Return feedback on the answer alone. Raises ContractViolation for a correction that has
    none.
    """
    plain: dict[str, Any] = {"output": without_reasoning(feedback.output)}
    if not isinstance(feedback.input, str):
        plain["input"] = messages_without_reasoning(feedback.input)
    if feedback.corrected_output is not None:
        plain["corrected_output"] = without_reasoning(feedback.corrected_output) or None
        if feedback.feedback_type == "correction" and plain["corrected_output"] is None:
            raise ContractViolation(
                "holds reasoning and no answer; send the corrected answer, or set thinking: keep "
                "in the model file",
                "corrected_output",
            )
    is_plain = all(getattr(feedback, name) == value for name, value in plain.items())
    return feedback if is_plain else feedback.model_copy(update=plain)


def _as_correction(feedback: FeedbackReceived, policy: ModelPolicy) -> FeedbackReceived:
    """Return a user's action that comes with another answer as a correction.

    A text that is not in the policy's format is a remark, which changes nothing.
    """
    corrected = (feedback.corrected_output or "").strip()
    is_correction = (
        feedback.feedback_type in _USER_ACTIONS
        and corrected not in ("", feedback.output.strip())
        and policy.format_error(corrected) is None
    )
    return (
        feedback.model_copy(update={"feedback_type": "correction"}) if is_correction else feedback
    )


def _check_correction_format(feedback: FeedbackReceived, policy: ModelPolicy) -> None:
    """Raise ContractViolation for a correction that breaks the policy's format: training learns
    corrections word for word, so the model would learn to break it.
    """
    if feedback.feedback_type == "correction" and feedback.corrected_output is not None:
        error = policy.format_error(feedback.corrected_output)
        if error is not None:
            reward = policy.file.reward
            raise ContractViolation(
                f"{error}, and the model would learn it (reward policy {reward.name!r}, version "
                f"{reward.version})",
                "corrected_output",
            )


def _build_event(
    redacted: RedactedFeedback, broken: tuple[Rule, ...], policy: ModelPolicy, received: Position
) -> FeedbackScored:
    feedback, reward = redacted.feedback, policy.file.reward
    parts = reward_parts(feedback, broken, reward)
    fields = {name: getattr(feedback, name) for name in FeedbackReceived.model_fields}
    return FeedbackScored(
        **fields,
        source=redacted.source,
        shard=policy.file.shard_of(feedback.user_id, feedback.conversation_id, feedback.output),
        reward=mean_reward(parts),
        parts=parts,
        policy=PolicyRef(name=reward.name, version=reward.version),
        model_digest=policy.digest,
        received=received,
    )
