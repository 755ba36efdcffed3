"""From a record of `feedback.received` to the event on `feedback.scored`, without any I/O: decode,
validate, redact, score.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from services.feedback.redaction.pii_match import Finder, FoundKind
from services.feedback.redaction.redactor import Redacted, Redactor
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
class Scored:
    """A scored event, the key that it goes out under, and how many pieces of personal data were
    taken out of it.
    """

    event: FeedbackScored
    key: str
    redactions: Mapping[FoundKind, int]


@dataclass(frozen=True, slots=True)
class _Policy:
    """What a model's file says of its feedback, made ready once."""

    file: ModelFile
    digest: Digest
    format_fault: Callable[[str], str | None]
    redactor: Redactor


class Policies:
    """How the feedback for each declared model is redacted and scored. `find_names` is for those
    that ask for it.
    """

    def __init__(self, models: Models, find_names: Finder | None = None) -> None:
        self._models = models
        self._made = {
            name: _Policy(
                file, file.digest, format_check(file.reward), Redactor(file.redaction, find_names)
            )
            for name, file in models.files.items()
        }

    def __iter__(self) -> Iterator[_Policy]:
        return iter(self._made.values())

    def of(self, model: str) -> _Policy:
        """Raises UnknownModel when no file declares it."""
        return self._made[self._models.get(model).model]


def score(record: Record, policies: Policies) -> Scored:
    """The scored event that a record becomes. Raises Unprocessable when it can never be one.

    Rules, format among them, are about the answer as it was given: a placeholder need not fit a
    schema. All else is computed on what redaction left, so that an event can be recomputed from
    itself.
    """
    decoded = decode(record.value, record.headers, FeedbackReceived)
    said, policy = decoded.event, accepting(decoded, policies)
    broken = broken_rules(said, policy.format_fault)
    redacted = policy.redactor.redact(said, decoded.source)
    received = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    event = _scored(redacted, broken, policy, received)
    return Scored(event, policy.file.key_of(event.shard), redacted.counts)


def accepting(decoded: Decoded[FeedbackReceived], policies: Policies) -> _Policy:
    """The policy by which feedback that keeps to its contract is scored. Raises Unprocessable when
    it can never be.
    """
    said = decoded.event
    if len(decoded.source) + len(said.event_id) >= MAX_ID:
        raise ContractViolation(
            f"together with event_id it is longer than {MAX_ID - 1} characters", "source"
        )
    policy = policies.of(said.model)
    _refuse_to_learn(said, policy)
    return policy


def _refuse_to_learn(feedback: FeedbackReceived, policy: _Policy) -> None:
    """A correction is learnt word for word; one in another format than the policy demands would
    teach that.
    """
    if feedback.feedback_type == "correction" and feedback.corrected_output is not None:
        fault = policy.format_fault(feedback.corrected_output)
        if fault is not None:
            reward = policy.file.reward
            raise ContractViolation(
                f"{fault}, and would be learnt (reward policy {reward.name!r}, version "
                f"{reward.version})",
                "corrected_output",
            )


def _scored(
    redacted: Redacted, broken: tuple[Rule, ...], policy: _Policy, received: Position
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
