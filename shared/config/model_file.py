"""A model is one file: `models/<name>.yaml` declares all there is to know about a model, and every
service reads the same one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, FiniteFloat, ValidationError, field_validator, model_validator
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


class BasePaths(FrozenModel):
    """The model that versions are adapters of. Relative paths start from the folder of bases
    (RATCHET_BASES).
    """

    training: Annotated[
        str, Field(description="a folder in the form of the transformers library, or a hub id")
    ]
    serving: Annotated[str, Field(description="the same weights as GGUF")]


class CurationSettings(FrozenModel):
    """What makes an example, and when a batch closes."""

    batch_size: Annotated[int, Field(ge=2, le=10_000)] = 50
    minimum_quality: Share = 0.6
    similarity: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.9
    held_out_share: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.1
    deduplicate_days: Annotated[int, Field(ge=1)] = 7
    pool: Annotated[
        int | None,
        Field(
            ge=2, le=100_000, description="wait for so many and choose the most informative of them"
        ),
    ] = None
    longest_wait_hours: Annotated[
        FiniteFloat | None,
        Field(gt=0, description="close a smaller batch when an example waits longer"),
    ] = None
    smallest_batch: Annotated[
        int, Field(ge=1, description="examples that a batch closed for its age has at least")
    ] = 10
    examples_per_user: Annotated[int, Field(ge=1)] = 5
    examples_per_conversation: Annotated[int, Field(ge=1)] = 5
    user_share: Annotated[
        FiniteFloat,
        Field(gt=0, le=1, description="of the examples of share_window batches, at most, per user"),
    ] = 0.1
    share_window: Annotated[int, Field(ge=1, le=1000)] = 10
    newcomer_hours: Annotated[
        FiniteFloat,
        Field(ge=0, description="how long the examples of a user not seen before wait first"),
    ] = 0.0


class LaneSettings(FrozenModel):
    """One lane of training."""

    training: TrainingConfig = TrainingConfig()
    training_set: Annotated[
        int,
        Field(
            ge=1,
            le=20_000,
            description="most examples of a run, new and replayed together; a larger batch is trained on "
            "whole, alone",
        ),
    ] = 500
    replay_window: Annotated[int, Field(ge=0)] = 10_000
    rehearsal: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages}; every run also learns the base's own answers to them, "
            "against forgetting"
        ),
    ] = None
    window: Annotated[
        TrainingWindow | None,
        Field(description="when runs of this lane may begin; without one, always"),
    ] = None


AnswerMeasure = Literal["bleu", "chrf", "exact_match", "json_validity"]


class DecidingMeasure(FrozenModel):
    """How a measure of greedy answers takes part in the decision. The margin is in its own unit:
    points of BLEU and chrF, else a share.
    """

    margin: Annotated[
        FiniteFloat,
        Field(ge=0, description="how much worse a candidate may be on held-out or golden"),
    ]
    promotes: Annotated[
        bool,
        Field(
            description="whether evidence that it is better is enough; if so, it takes its part of the "
            "error"
        ),
    ] = False


class RewardHackingRule(FrozenModel):
    """When rising reward of what is learned, while held-out does not follow, looks like reward
    hacking.
    """

    versions: Annotated[
        int,
        Field(
            ge=3, le=100, description="the newest evaluated candidates that the trend is taken over"
        ),
    ] = 4
    reward_rise: Annotated[
        FiniteFloat,
        Field(gt=0, le=2, description="of the mean reward, over them, from which on it is rising"),
    ] = 0.1
    held_out_gain: Annotated[
        FiniteFloat,
        Field(
            description="nats per answer token, summed over them, up to which held-out is flat or falling"
        ),
    ] = 0.0
    blocks: Annotated[bool, Field(description="whether it stops promotion, or is only told")] = True


class GateSettings(FrozenModel):
    """The sets and margins by which a candidate is judged. Margins are nats of mean log-likelihood
    per answer token.
    """

    confidence: Annotated[FiniteFloat, Field(gt=0.5, lt=1)] = 0.95
    minimum_examples: Annotated[int, Field(ge=2)] = 12
    held_out_newest: Annotated[int, Field(ge=1)] = 500
    improvement_margin: Margin = 0.005
    harm_margin: Margin = 0.02
    retention_margin: Margin = 0.5
    golden: Annotated[
        str | None, Field(description="JSON Lines of {messages, answer}, beside the model file")
    ] = None
    retention: Annotated[
        str | None,
        Field(description="JSON Lines of {messages}; the base's own answers are the reference"),
    ] = None
    canaries: Annotated[
        str | None, Field(description="JSON Lines of {messages, must_contain, must_not_contain}")
    ] = None
    probes: Annotated[int, Field(ge=1, le=32)] = 4
    answered: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="examples of held-out and of golden that are answered, at most, each",
        ),
    ] = 8
    answer_tokens: Annotated[
        int, Field(ge=1, le=4096, description="of an answer that is measured, at most")
    ] = 48
    deciding: Annotated[
        Mapping[AnswerMeasure, DecidingMeasure],
        Field(description="the measures of answers that decide beside the log-likelihood"),
    ] = {}
    tripwire: RewardHackingRule = RewardHackingRule()

    @model_validator(mode="after")
    def _has_answers_to_decide_by(self) -> Self:
        if self.deciding and not self.answered:
            raise ValueError(
                f"deciding: {', '.join(self.deciding)} needs answers, and `answered` is 0"
            )
        promoting = [name for name, deciding in self.deciding.items() if deciding.promotes]
        if promoting and self.answered < self.minimum_examples:
            raise ValueError(
                f"deciding: {', '.join(promoting)} cannot promote while `answered` is less "
                "than `minimum_examples`"
            )
        return self


class DeployTarget(FrozenModel):
    """Where the champion is served."""

    kind: Literal["llamacpp", "ollama", "folder"]
    location: Annotated[
        str | None,
        Field(
            description="a URL, or a folder; without one, the URL that RATCHET_SERVING or RATCHET_OLLAMA "
            "names"
        ),
    ] = None


class RetentionSettings(FrozenModel):
    """Which adapters stay in the object store, beside those that always do: what an alias names,
    what a target serves, and every version that ever was champion.
    """

    versions: Annotated[int, Field(ge=1, description="so many newest versions stay")] = 20
    days: Annotated[
        FiniteFloat,
        Field(
            ge=0, description="what a run left stays for so long after its end, whatever came of it"
        ),
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
            description="how what the gate promotes is tried on some users first; without it, it is "
            "promoted at once"
        ),
    ] = None
    deploy: tuple[DeployTarget, ...] = ()
    retention: Annotated[
        RetentionSettings | None, Field(description="which adapters stay; without it, all of them")
    ] = None

    @field_validator("lanes", mode="before")
    @classmethod
    def _training_knows_its_lane(cls, lanes: Any) -> Any:
        """A configuration's ranges and defaults are those of the lane under which it stands."""
        if not isinstance(lanes, Mapping):
            return lanes
        return {lane: _in_lane(lane, settings) for lane, settings in lanes.items()}

    @field_validator("lanes")
    @classmethod
    def _no_training_of_another_lane(
        cls, lanes: Mapping[Lane, LaneSettings]
    ) -> Mapping[Lane, LaneSettings]:
        for lane, settings in lanes.items():
            if settings.training.lane != lane:
                found = settings.training.lane
                raise PydanticCustomError(
                    "another_lane", f"the training of the lane {lane} says that its lane is {found}"
                )
        return lanes

    @property
    def digest(self) -> Digest:
        """What the file says, in short; in every event that it decided."""
        return digest_of(canonical_json(self.model_dump(mode="json")))

    def shard_of(self, user: str | None, conversation: str | None, answer: str) -> int:
        """The shard of a piece of feedback: by user, else by conversation, else by the answer."""
        return int(hash_fraction("shard", user or conversation or answer) * self.shards)

    def key_of(self, shard: int) -> str:
        """The key of a shard's records: the model's name alone while it has one shard."""
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
    """A prompt with what its answer must or must not contain."""

    messages: tuple[Message, ...]
    must_contain: tuple[str, ...] = ()
    must_not_contain: tuple[str, ...] = ()


class GoldenExample(FrozenModel):
    """A prompt with the answer that is right."""

    messages: tuple[Message, ...]
    answer: str


class Prompt(FrozenModel):
    """A prompt whose answer is the base's own."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Models:
    """The declared models, and the folder that paths in their files start from."""

    files: Mapping[str, ModelFile]
    folder: Path

    def get(self, model: str) -> ModelFile:
        """Raises UnknownModel when no file declares it."""
        try:
            return self.files[model]
        except KeyError:
            raise UnknownModel(model) from None

    def golden(self, model: str) -> list[GoldenExample]:
        """The golden set of a model, empty when it has none. Raises ModelFileError naming file and
        line.
        """
        return _lines(self.folder, self.get(model).gate.golden, GoldenExample)

    def rehearsal(self, model: str, lane: Lane) -> list[Prompt]:
        return _lines(self.folder, self.get(model).lanes[lane].rehearsal, Prompt)

    def regression_set(self, model: str) -> list[Prompt]:
        return _lines(self.folder, self.get(model).gate.retention, Prompt)

    def regression_prompts(self, model: str) -> list[RegressionPrompt]:
        return _lines(self.folder, self.get(model).gate.canaries, RegressionPrompt)


def load_models(folder: Path) -> Models:
    """Every model file of a folder. Raises ModelFileError naming file, line and field, and when
    there is none.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ModelFileError(
            f"{folder}: no model file (*.yaml) here; RATCHET_MODELS names the folder"
        )
    models = [load_model(path) for path in paths]
    return Models({model.model: model for model in models}, folder)


def load_model(path: Path) -> ModelFile:
    """One model file; its name is the model's."""
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
            f"{path}:{_line_of(tree, ('model',))}: model: {model.model!r} must be named as "
            f"its file is, {path.stem!r}"
        )
    return model


def _line_of(node: yaml.Node | None, location: Iterable[str | int]) -> int:
    """The line of the innermost node on the way to `location`, counted from 1."""
    line = node.start_mark.line + 1 if node else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = next(
                ((key, value) for key, value in node.value if key.value == str(step)), None
            )
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
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
