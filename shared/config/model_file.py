"""Model files: `models/<name>.yaml` declares everything about a model, and every service reads the
same file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AliasChoices,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shared.config.canary import CanarySettings
from shared.config.monitor import MonitorSettings
from shared.config.redaction_policy import RedactionPolicy
from shared.config.reward_policy import RewardPolicy
from shared.config.training import TrainingConfig
from shared.config.training_window import TrainingWindow
from shared.errors import ModelFileError, UnknownModel
from shared.events import Digest, FrozenModel, Message, Name, Share
from shared.events.hyperparameters import Lane
from shared.identity import digest_of, hash_fraction
from shared.storage.object_store import canonical_json

V = TypeVar("V", bound=FrozenModel)

Margin = Annotated[FiniteFloat, Field(ge=0)]

RENAMED_KEYS: Mapping[str, Mapping[str, str]] = {
    "curation": {"new_user_hours": "newcomer_hours"},
    "gate": {
        "regression_margin": "retention_margin",
        "regression_set": "retention",
        "regression_prompts": "canaries",
        "reward_hacking": "tripwire",
    },
}
"""Old names of renamed keys, by section. Model files may still use them."""


def _both_names(section: str, key: str) -> AliasChoices:
    return AliasChoices(key, RENAMED_KEYS[section][key])


def _without_duplicate_keys(values: Any, section: str) -> Any:
    """Return `values`, unless a renamed key is given under both names."""
    for new, old in RENAMED_KEYS[section].items():
        if isinstance(values, Mapping) and new in values and old in values:
            raise PydanticCustomError(
                "duplicate_key",
                f"{new} and {old} are two names of the same key; remove {old}",
            )
    return values


class BasePaths(FrozenModel):
    """The base model that versions are adapters of.

    Relative paths start from the folder of bases (RATCHET_BASES).
    """

    training: Annotated[
        str, Field(description="a folder in transformers format, or a Hugging Face Hub id")
    ]
    serving: Annotated[str, Field(description="a GGUF file of the same weights")]


class CurationSettings(FrozenModel):
    """Rules for training examples and for closing a batch."""

    batch_size: Annotated[int, Field(ge=2, le=10_000)] = 50
    minimum_quality: Share = 0.6
    similarity: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.9
    held_out_share: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.1
    deduplicate_days: Annotated[int, Field(ge=1)] = 7
    pool: Annotated[
        int | None,
        Field(
            ge=2,
            le=100_000,
            description="pool size: the batch takes the most informative of that many examples",
        ),
    ] = None
    longest_wait_hours: Annotated[
        FiniteFloat | None,
        Field(gt=0, description="close a smaller batch when an example has waited this long"),
    ] = None
    smallest_batch: Annotated[
        int,
        Field(ge=1, description="minimum size of a batch that is closed after longest_wait_hours"),
    ] = 10
    examples_per_user: Annotated[int, Field(ge=1)] = 5
    examples_per_conversation: Annotated[int, Field(ge=1)] = 5
    user_share: Annotated[
        FiniteFloat,
        Field(gt=0, le=1, description="maximum share of one user in share_window batches"),
    ] = 0.1
    share_window: Annotated[int, Field(ge=1, le=1000)] = 10
    new_user_hours: Annotated[
        FiniteFloat,
        Field(
            ge=0,
            description="delay for the examples of a new user",
            validation_alias=_both_names("curation", "new_user_hours"),
        ),
    ] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _one_spelling_per_key(cls, values: Any) -> Any:
        return _without_duplicate_keys(values, "curation")


class LaneSettings(FrozenModel):
    """One training lane."""

    training: TrainingConfig = TrainingConfig()
    training_set: Annotated[
        int,
        Field(
            ge=1,
            le=20_000,
            description="maximum number of examples of a run, new and replayed together; a larger "
            "batch is trained on whole, without replay",
        ),
    ] = 500
    replay_window: Annotated[int, Field(ge=0)] = 10_000
    rehearsal: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages}; every run also trains on the base's own answers "
            "to them, against forgetting"
        ),
    ] = None
    window: Annotated[
        TrainingWindow | None,
        Field(description="hours in which runs of this lane may start; default: always"),
    ] = None


AnswerMeasure = Literal["bleu", "chrf", "exact_match", "json_validity"]


class DecidingMeasure(FrozenModel):
    """Role of a measure of greedy answers in the gate's decision.

    The margin is in the unit of the measure: points of BLEU and chrF, else a share.
    """

    margin: Annotated[
        FiniteFloat,
        Field(ge=0, description="tolerated decline on the held-out or golden set"),
    ]
    promotes: Annotated[
        bool,
        Field(
            description="true if an improvement in this measure suffices for promotion; it then "
            "takes its part of the error"
        ),
    ] = False


class RewardHackingRule(FrozenModel):
    """Thresholds of the reward hacking alarm.

    Reward hacking is suspected when the reward of the learned examples rises while the held-out
    score does not follow.
    """

    versions: Annotated[
        int,
        Field(ge=3, le=100, description="number of the latest evaluated candidates in the trend"),
    ] = 4
    reward_rise: Annotated[
        FiniteFloat,
        Field(gt=0, le=2, description="rise of the mean reward over them that counts as rising"),
    ] = 0.1
    held_out_gain: Annotated[
        FiniteFloat,
        Field(
            description="gain on held-out over them, in nats per answer token, up to which it "
            "counts as flat or falling"
        ),
    ] = 0.0
    blocks: Annotated[bool, Field(description="block promotion; if false, only report")] = True


class GateSettings(FrozenModel):
    """Evaluation sets and margins of the gate.

    Margins are nats of mean log-likelihood per answer token.
    """

    confidence: Annotated[FiniteFloat, Field(gt=0.5, lt=1)] = 0.95
    minimum_examples: Annotated[int, Field(ge=2)] = 12
    held_out_newest: Annotated[int, Field(ge=1)] = 500
    improvement_margin: Margin = 0.005
    harm_margin: Margin = 0.02
    regression_margin: Annotated[
        Margin, Field(validation_alias=_both_names("gate", "regression_margin"))
    ] = 0.5
    golden: Annotated[
        str | None,
        Field(description="JSON Lines of {messages, answer}, relative to the model file's folder"),
    ] = None
    regression_set: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages}; the base's own answers are the reference",
            validation_alias=_both_names("gate", "regression_set"),
        ),
    ] = None
    regression_prompts: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages, must_contain, must_not_contain}",
            validation_alias=_both_names("gate", "regression_prompts"),
        ),
    ] = None
    probes: Annotated[int, Field(ge=1, le=32)] = 4
    answered: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="maximum number of held-out and of golden examples that are answered, each",
        ),
    ] = 8
    answer_tokens: Annotated[
        int, Field(ge=1, le=4096, description="maximum length of a measured answer in tokens")
    ] = 48
    deciding: Annotated[
        Mapping[AnswerMeasure, DecidingMeasure],
        Field(description="answer measures that take part in the decision besides log-likelihood"),
    ] = {}
    reward_hacking: Annotated[
        RewardHackingRule, Field(validation_alias=_both_names("gate", "reward_hacking"))
    ] = RewardHackingRule()

    @model_validator(mode="before")
    @classmethod
    def _one_spelling_per_key(cls, values: Any) -> Any:
        return _without_duplicate_keys(values, "gate")

    @model_validator(mode="after")
    def _answers_suffice(self) -> Self:
        if self.deciding and not self.answered:
            raise ValueError(
                f"deciding: {', '.join(self.deciding)} needs answers; raise `answered` above 0"
            )
        promoting = [name for name, deciding in self.deciding.items() if deciding.promotes]
        if promoting and self.answered < self.minimum_examples:
            raise ValueError(
                f"deciding: {', '.join(promoting)} cannot promote; raise `answered` to at least "
                "`minimum_examples`"
            )
        return self


class DeployTarget(FrozenModel):
    """A server or folder that the champion is deployed to."""

    kind: Literal["llamacpp", "ollama", "folder"]
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

    model: Name
    base: BasePaths
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    reward: RewardPolicy = RewardPolicy()
    redaction: RedactionPolicy = RedactionPolicy()
    curation: CurationSettings = CurationSettings()
    lanes: Mapping[Lane, LaneSettings] = {"adaptive": LaneSettings()}
    gate: GateSettings = GateSettings()
    monitor: MonitorSettings = MonitorSettings()
    canary: Annotated[
        CanarySettings | None,
        Field(
            description="canary rollout of candidates that pass the gate; without it, they are "
            "promoted at once"
        ),
    ] = None
    deploy: tuple[DeployTarget, ...] = ()
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
    def digest(self) -> Digest:
        """Digest of the content; every event that this file decided carries it.

        Stored events contain digests, so the digested text keeps the old names of renamed keys.
        """
        content = self.model_dump(mode="json")
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


class RegressionPrompt(FrozenModel):
    """A prompt with strings that its answer must or must not contain."""

    messages: tuple[Message, ...]
    must_contain: tuple[str, ...] = ()
    must_not_contain: tuple[str, ...] = ()


class GoldenExample(FrozenModel):
    """A prompt with its reference answer."""

    messages: tuple[Message, ...]
    answer: str


class Prompt(FrozenModel):
    """A prompt whose reference answer is generated by the base model."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Models:
    """The declared models, and the folder that paths in their files are relative to."""

    files: Mapping[str, ModelFile]
    folder: Path

    def get(self, model: str) -> ModelFile:
        """Return the file of a model. Raises UnknownModel when no file declares it."""
        try:
            return self.files[model]
        except KeyError:
            raise UnknownModel(model) from None

    def golden(self, model: str) -> list[GoldenExample]:
        """Read the golden set of a model; empty when it has none.

        Raises ModelFileError with file and line.
        """
        return _lines(self.folder, self.get(model).gate.golden, GoldenExample)

    def rehearsal(self, model: str, lane: Lane) -> list[Prompt]:
        """Read the rehearsal prompts of a lane; empty when it has none. Raises ModelFileError."""
        return _lines(self.folder, self.get(model).lanes[lane].rehearsal, Prompt)

    def regression_set(self, model: str) -> list[Prompt]:
        """Read the gate's regression set; empty without one. Raises ModelFileError."""
        return _lines(self.folder, self.get(model).gate.regression_set, Prompt)

    def regression_prompts(self, model: str) -> list[RegressionPrompt]:
        """Read the gate's regression prompts; empty when there are none. Raises ModelFileError."""
        return _lines(self.folder, self.get(model).gate.regression_prompts, RegressionPrompt)


def load_models(folder: Path) -> Models:
    """Load every model file of a folder.

    Raises ModelFileError with file, line and field, and when the folder has no model file.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ModelFileError(
            f"{folder}: no model file (*.yaml) here; RATCHET_MODELS names the folder"
        )
    models = [load_model(path) for path in paths]
    return Models({model.model: model for model in models}, folder)


def load_model(path: Path) -> ModelFile:
    """Load one model file; the file name has to match the model's name. Raises ModelFileError."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        model = ModelFile.model_validate(yaml.safe_load(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ModelFileError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        problems = (
            f"{path}:{_line_of(tree, problem['loc'])}: {'.'.join(map(str, problem['loc']))}: "
            f"{problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise ModelFileError("\n".join(problems)) from error
    if model.model != path.stem:
        raise ModelFileError(
            f"{path}:{_line_of(tree, ('model',))}: model: {model.model!r} must match the name of "
            f"its file, {path.stem!r}"
        )
    return model


def _line_of(node: yaml.Node | None, location: Iterable[str | int]) -> int:
    """Return the line, counted from 1, of the innermost node on the path to `location`."""
    line = node.start_mark.line + 1 if node else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(
                ((key, value) for key, value in node.value if key.value == str(step)), None
            )
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value)
        ):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _lines(folder: Path, name: str | None, kind: type[V]) -> list[V]:
    if name is None:
        return []
    path = folder / name
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from error
    return [
        _line(path, number, line, kind)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _line(path: Path, number: int, line: str, kind: type[V]) -> V:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ModelFileError(
            f"{path}:{number}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        ) from error
