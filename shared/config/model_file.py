"""Model files: `models/<name>.yaml` declares everything about a model, and every service reads the
same file.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    FiniteFloat,
    field_validator,
)
from pydantic_core import PydanticCustomError

from shared.config.canary import CanarySettings
from shared.config.curation import CurationSettings
from shared.config.gate import GateSettings
from shared.config.monitor import FORMER_REWARDS_PER_USER, MonitorSettings
from shared.config.redaction_policy import RedactionPolicy
from shared.config.renamed_keys import RENAMED_KEYS
from shared.config.reward_policy import RewardPolicy
from shared.config.template_variables import TemplateVariables
from shared.config.training import TrainingConfig
from shared.config.training_window import TrainingWindow
from shared.events import Digest, FrozenModel, Name
from shared.events.hyperparameters import Lane
from shared.identity import digest_of, hash_fraction
from shared.storage.object_store import canonical_json


class BasePaths(FrozenModel):
    """The base model that versions are adapters of.

    Relative paths start from the folder of bases (RATCHET_BASES).
    """

    training: Annotated[
        str, Field(description="a folder in transformers format, or a Hugging Face Hub id")
    ]
    serving: Annotated[str, Field(description="a GGUF file of the same weights")]


class LaneSettings(FrozenModel):
    """One training lane."""

    training: Annotated[
        TrainingConfig, Field(description="hyperparameters, with the lane's defaults and ranges")
    ] = TrainingConfig()
    training_set: Annotated[
        int,
        Field(
            ge=1,
            le=20_000,
            description="maximum number of examples of a run, new and replayed together; a larger "
            "batch is trained on whole, without replay",
        ),
    ] = 500
    replay_window: Annotated[
        int,
        Field(ge=0, description="number of the newest examples that replayed ones are drawn from"),
    ] = 10_000
    rehearsal: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages}; every run also trains on the base's own answers "
            "to them, against forgetting. Default: 24 general prompts that come with Ratchet, "
            "except prompts of the model's evaluation sets; `none` turns it off"
        ),
    ] = None
    window: Annotated[
        TrainingWindow | None,
        Field(description="hours in which runs of this lane may start; default: always"),
    ] = None


class DeployTarget(FrozenModel):
    """A server or folder that the champion is deployed to."""

    kind: Annotated[
        Literal["llamacpp", "ollama", "folder"],
        Field(
            description="the embedded host, an Ollama server, or a folder that other servers read"
        ),
    ]
    location: Annotated[
        str | None,
        Field(
            description="a URL or a folder; default: the URL in RATCHET_SERVING or RATCHET_OLLAMA"
        ),
    ] = None


class RetentionSettings(FrozenModel):
    """Retention rule for adapters in the object store.

    Adapters that an alias names or a target serves, and those of every version that ever was
    champion, always stay.
    """

    versions: Annotated[int, Field(ge=1, description="number of newest versions that stay")] = 20
    days: Annotated[
        FiniteFloat,
        Field(ge=0, description="days that an adapter stays after its run, whatever the outcome"),
    ] = 30.0


class ModelFile(FrozenModel):
    """A declared model."""

    model: Annotated[Name, Field(description="name of the model, and of this file without .yaml")]
    base: Annotated[BasePaths, Field(description="the base model")]
    shards: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="number of datasets that feedback is divided into, by user",
        ),
    ] = 1
    thinking: Annotated[
        Literal["drop", "keep"],
        Field(
            description="reasoning before an answer: not trained on and switched off in the chat "
            "template, or part of the answer and switched on"
        ),
    ] = "drop"
    reward: Annotated[RewardPolicy, Field(description="computation of rewards from feedback")] = (
        RewardPolicy()
    )
    redaction: Annotated[
        RedactionPolicy, Field(description="personal data and secrets that are replaced")
    ] = RedactionPolicy()
    curation: Annotated[
        CurationSettings, Field(description="choice of training examples and closing of batches")
    ] = CurationSettings()
    lanes: Annotated[
        Mapping[Lane, LaneSettings],
        Field(
            description="training lanes: adaptive for feedback, master for training from the base"
        ),
    ] = {"adaptive": LaneSettings()}
    gate: Annotated[GateSettings, Field(description="evaluation of candidates")] = GateSettings()
    monitor: Annotated[
        MonitorSettings, Field(description="rollback of a champion that users rate lower")
    ] = MonitorSettings()
    canary: Annotated[
        CanarySettings | None,
        Field(
            description="canary trial of candidates that pass the gate; without it, they are "
            "promoted at once"
        ),
    ] = None
    deploy: Annotated[
        tuple[DeployTarget, ...], Field(description="targets that serve the champion")
    ] = ()
    retention: Annotated[
        RetentionSettings | None, Field(description="which adapters stay; default: all of them")
    ] = None

    @field_validator("lanes", mode="before")
    @classmethod
    def _fill_in_lane(cls, lanes: Any) -> Any:
        """Fill in the lane, which sets the ranges and defaults of its training configuration."""
        if not isinstance(lanes, Mapping):
            return lanes
        return {lane: _in_lane(lane, settings) for lane, settings in lanes.items()}

    @field_validator("lanes")
    @classmethod
    def _training_matches_lane(
        cls, lanes: Mapping[Lane, LaneSettings]
    ) -> Mapping[Lane, LaneSettings]:
        for lane, settings in lanes.items():
            if settings.training.lane != lane:
                raise PydanticCustomError(
                    "another_lane",
                    f"training of lane {lane} has lane: {settings.training.lane}; remove the key",
                )
        return lanes

    @property
    def template_variables(self) -> TemplateVariables:
        """Variables of the base's chat template, in training and in serving."""
        return TemplateVariables(enable_thinking=self.thinking == "keep")

    @property
    def digest(self) -> Digest:
        """Digest of the content; every event that this file decided carries it.

        Stored events contain digests, so the digested text keeps the old names of renamed keys and
        the former defaults of changed settings, and a later key with its default has no part in it.
        """
        content = self.model_dump(mode="json", exclude={"thinking"})
        for lane, settings in self.lanes.items():
            former = settings.training.with_former_defaults()
            content["lanes"][lane]["training"] = former.model_dump(mode="json")
        for name, rule in (("monitor", self.monitor), ("canary", self.canary)):
            if rule is not None and "rewards_per_user" not in rule.model_fields_set:
                content[name]["rewards_per_user"] = FORMER_REWARDS_PER_USER
        if self.thinking != "drop":
            content["thinking"] = self.thinking
        for section, renamed in RENAMED_KEYS.items():
            for new, old in renamed.items():
                content[section][old] = content[section].pop(new)
        return digest_of(canonical_json(content))

    def shard_of(self, user: str | None, conversation: str | None, answer: str) -> int:
        """Return the shard of a piece of feedback: by user, else by conversation, else by the
        answer.
        """
        return int(hash_fraction("shard", user or conversation or answer) * self.shards)

    def key_of(self, shard: int) -> str:
        """Return the record key of a shard: the model's name alone when it has one shard."""
        return self.model if self.shards == 1 else f"{self.model}#{shard}"


def _in_lane(lane: Any, settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        return settings
    training = settings.get("training", {})
    return {
        **settings,
        "training": {"lane": lane, **training} if isinstance(training, Mapping) else training,
    }
