"""Messages between the trainer and its training process: one JSON object per line. A request
receives progress replies and then one final reply.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter

from services.trainer.data.training_set import PreferencePair, Sample
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.config.training import TrainingConfig
from shared.events import FrozenModel, Message, ProbeToken

Messages = tuple[Message, ...]
"""A prompt: the turns before an answer."""


class GreedyAnswer(FrozenModel):
    """A greedy answer. Its text is decoded as a whole: the texts of its tokens do not add up to it
    where a token is part of a character. `prompt_tokens` are those of a probe's prompt; None if a
    server may make others of it, because the prompt was cut or depends on the day.
    """

    text: str
    tokens: tuple[ProbeToken, ...]
    prompt_tokens: tuple[int, ...] | None = None


class Load(FrozenModel):
    """Load a base into memory, unless it is loaded already. Ends with `Loaded`."""

    kind: Literal["load"] = "load"
    base: Path
    precision: str
    quantisation: str = "none"
    template: TemplateVariables = DEFAULT_VARIABLES


class EstimateMemory(FrozenModel):
    """Estimate whether a run fits into memory; loads only the tokenizer. Ends with
    `MemoryEstimate`, or with a refusal that names a configuration that fits.
    """

    kind: Literal["fit"] = "fit"
    base: Path
    examples: tuple[Sample, ...]
    configuration: TrainingConfig
    template: TemplateVariables = DEFAULT_VARIABLES


class DescribeDevice(FrozenModel):
    """Describe the device; loads nothing. Ends with `DeviceDescribed`."""

    kind: Literal["describe"] = "describe"


class CheckPrompts(FrozenModel):
    """Check which prompts the base's chat template accepts; loads only the tokenizer. Ends with
    `PromptsChecked`.
    """

    kind: Literal["check"] = "check"
    base: Path
    prompts: tuple[Messages, ...]
    template: TemplateVariables = DEFAULT_VARIABLES


class Train(FrozenModel):
    """Train an adapter from `parent`, or a fresh one for None, and write it to `out`. Replies
    `Stepped`, ends with `Trained`, or with `Stopped` after a `Stop`.

    `examples` are for supervised learning, `pairs` for DPO, `desirable` and `undesirable` for KTO;
    empty ones do not contribute to the loss. The run saves its state in folders `checkpoint-<step>`
    under `checkpoints`, and resumes from the newest valid one of the same request.
    """

    kind: Literal["train"] = "train"
    examples: tuple[Sample, ...]
    pairs: tuple[PreferencePair, ...] = ()
    desirable: tuple[Sample, ...] = ()
    undesirable: tuple[Sample, ...] = ()
    configuration: TrainingConfig
    parent: Path | None
    checkpoints: Path
    out: Path
    base_name: str


class Stop(FrozenModel):
    """Stop the last requested training after its current step, with a checkpoint.

    This is not a request: it has no reply of its own, and no effect if that training has ended or
    another request followed.
    """

    kind: Literal["stop"] = "stop"


class Score(FrozenModel):
    """Score reference answers. Replies `EvaluationProgress`, ends with `Scores`."""

    kind: Literal["score"] = "score"
    adapter: Path | None
    samples: tuple[Sample, ...]
    max_tokens: int


class Generate(FrozenModel):
    """Generate greedy answers: `probes` as an F16 server does, `prompts` as fast as the device can.
    Replies `EvaluationProgress`, ends with `Generated`.
    """

    kind: Literal["answer"] = "answer"
    adapter: Path | None
    probes: tuple[Messages, ...]
    prompts: tuple[Messages, ...]
    max_tokens: int
    max_new_tokens: int


class Stepped(FrozenModel):
    """Result of a training step.

    `loss` is that of the supervised examples alone, in nats per answer token; the other two losses
    are set if the run has those objectives.
    """

    kind: Literal["stepped"] = "stepped"
    step: int
    total_steps: int
    loss: FiniteFloat
    learning_rate: FiniteFloat
    gradient_norm: FiniteFloat | None
    tokens_per_second: FiniteFloat
    seconds_left: FiniteFloat
    preference_loss: FiniteFloat | None = None
    judged_loss: FiniteFloat | None = None


class EvaluationProgress(FrozenModel):
    kind: Literal["counted"] = "counted"
    done: int
    total: int


class Loaded(FrozenModel):
    kind: Literal["loaded"] = "loaded"


class MemoryEstimate(FrozenModel):
    """Estimated bytes that the run needs, and the limit; `needed` is null for a base with unknown
    dimensions.
    """

    kind: Literal["fits"] = "fits"
    needed: int | None
    limit: int


class DeviceDescribed(FrozenModel):
    """The training device, its best precision, and the maximum memory of a run in bytes."""

    kind: Literal["described"] = "described"
    device: str
    precision: str
    memory: int


class PromptsChecked(FrozenModel):
    """Reasons of the prompts that cannot be rendered, and the prompts that a server would render
    otherwise, because they were adapted or contain strings of control tokens; by their index.
    """

    kind: Literal["checked"] = "checked"
    refused: Mapping[int, str]
    inexact: tuple[int, ...]


class Trained(FrozenModel):
    """Result of a completed run. `training_loss` is the mean of the last epoch, in nats per answer
    token.
    """

    kind: Literal["trained"] = "trained"
    training_loss: FiniteFloat
    steps: int
    tokens: int
    seconds: FiniteFloat


class Stopped(FrozenModel):
    """Training was stopped early; the newest checkpoint holds its state after `step` steps."""

    kind: Literal["stopped"] = "stopped"
    step: int


class Scores(FrozenModel):
    kind: Literal["scored"] = "scored"
    scores: tuple[FiniteFloat, ...]


class Generated(FrozenModel):
    kind: Literal["answered"] = "answered"
    probes: tuple[GreedyAnswer, ...]
    prompts: tuple[GreedyAnswer, ...]


class RequestRefused(FrozenModel):
    """The request cannot be met, and another training process could not meet it either."""

    kind: Literal["refused"] = "refused"
    reason: str
    advice: str


class NoWorker(FrozenModel):
    """No training process could be started, because the cluster cannot place it. `permanent` is
    True if a person has to change something first.
    """

    kind: Literal["unplaced"] = "unplaced"
    reason: str
    permanent: bool


Request = Load | EstimateMemory | DescribeDevice | CheckPrompts | Train | Score | Generate
Reply = (
    Stepped
    | EvaluationProgress
    | Loaded
    | MemoryEstimate
    | DeviceDescribed
    | PromptsChecked
    | Trained
    | Stopped
    | Scores
    | Generated
    | RequestRefused
    | NoWorker
)

REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])
STOP = Stop().model_dump_json().encode()
"""The complete line of a `Stop`, which the training process recognises while it is busy."""
