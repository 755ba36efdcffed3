"""What parent and child say to each other: JSON, one object a line. A request has replies of
progress and then one that ends it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter

from services.trainer.data.training_set import PreferencePair, Sample
from shared.config.training import TrainingConfig
from shared.events import FrozenModel, Message, ProbeToken

Messages = tuple[Message, ...]
"""A prompt: the turns before an answer."""

GreedyAnswer = tuple[ProbeToken, ...]
"""An answer of the likeliest tokens, one by one."""


class Load(FrozenModel):
    """Hold a base in memory; nothing to do when it is there already. Ends with `Loaded`."""

    kind: Literal["load"] = "load"
    base: Path
    precision: str
    quantisation: str = "none"


class EstimateMemory(FrozenModel):
    """Say whether a run fits into memory, with nothing loaded but the tokenizer. Ends with `Fits`,
    or is refused with what would fit.
    """

    kind: Literal["fit"] = "fit"
    base: Path
    examples: tuple[Sample, ...]
    configuration: TrainingConfig


class Train(FrozenModel):
    """Train an adapter from `parent` (None: a fresh one) and write it to `out`. Replies `Stepped`,
    ends with `Trained`; after a `Stop` with `Stopped`.

    `examples` are learned as they stand, `pairs` by preference, `desirable` and `undesirable` as
    judged answers; what is empty has no part in the loss. The run leaves its state in folders
    `checkpoint-<step>` under `checkpoints`, and goes on from the newest whole one that the same
    request has left there.
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
    """End the training that was asked for last after its present step, with a checkpoint. No
    request: it has no reply of its own, and changes nothing when that training is over, or when
    something else was asked for last.
    """

    kind: Literal["stop"] = "stop"


class Score(FrozenModel):
    """Score reference answers. Replies `Counted`, ends with `Scored`."""

    kind: Literal["score"] = "score"
    adapter: Path | None
    samples: tuple[Sample, ...]
    max_tokens: int


class Generate(FrozenModel):
    """Answer greedily: `probes` as an F16 server does, `prompts` as fast as this device can.
    Replies `Counted`, ends with `Answered`.
    """

    kind: Literal["answer"] = "answer"
    adapter: Path | None
    probes: tuple[Messages, ...]
    prompts: tuple[Messages, ...]
    max_tokens: int
    max_new_tokens: int


class Stepped(FrozenModel):
    """`loss` is that of the examples alone, in nats per answer token; the other two are there where
    the run has such lessons.
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
    """Bytes that the run needs, by estimate, and that there are; `needed` is null for a base whose
    measures are not known.
    """

    kind: Literal["fits"] = "fits"
    needed: int | None
    limit: int


class Trained(FrozenModel):
    """`training_loss` is the last epoch's mean, in nats per answer token."""

    kind: Literal["trained"] = "trained"
    training_loss: FiniteFloat
    steps: int
    tokens: int
    seconds: FiniteFloat


class Stopped(FrozenModel):
    """Training ended before its time; its state after `step` steps lies in the newest checkpoint."""

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
    """The request cannot be met, and would not be by another child either."""

    kind: Literal["refused"] = "refused"
    reason: str
    advice: str


class NoWorker(FrozenModel):
    """There is no child to answer any request: the cluster that it should live on does not take it.
    `lasting` where a person has to change something first.
    """

    kind: Literal["unplaced"] = "unplaced"
    reason: str
    permanent: bool


Request = Load | EstimateMemory | Train | Score | Generate
Reply = (
    Stepped
    | EvaluationProgress
    | Loaded
    | MemoryEstimate
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
"""The whole line of a `Stop`: the child tells it apart while it is busy."""
