"""How a lane trains: one frozen value, checked against the ranges of its lane when it is made."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Lane = Literal["adaptive", "master"]
Lineage = Literal["continue", "fresh"]


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


class Range(NamedTuple):
    """Both ends are allowed."""

    least: float
    most: float


BOTH: Mapping[str, Range] = {
    "dropout": Range(0, 0.5),
    "batch_size": Range(1, 256),
    "warmup_ratio": Range(0, 0.5),
    "max_gradient_norm": Range(0.01, 100),
    "max_tokens": Range(16, 131_072),
    "replay": Range(0, 10_000),
    "cycles": Range(1, 100),
    "dpo_pairs": Range(1, 1_000_000),
    "kto_negatives": Range(1, 1_000_000),
    "beta": Range(0.001, 10),
    "save_steps": Range(1, 100_000),
    "save_minutes": Range(0.01, 1440),
}

RANGES: Mapping[Lane, Mapping[str, Range]] = {
    "adaptive": {
        "rank": Range(4, 64),
        "alpha": Range(8, 128),
        "learning_rate": Range(1e-5, 5e-3),
        "epochs": Range(1, 50),
        **BOTH,
    },
    "master": {
        "rank": Range(8, 64),
        "alpha": Range(16, 128),
        "learning_rate": Range(2e-5, 1e-3),
        "epochs": Range(1, 20),
        **BOTH,
    },
}
"""What each number of a lane's configuration may be."""

DEFAULTS: Mapping[Lane, Mapping[str, Any]] = {
    "adaptive": {},
    # A lineage that begins anew knows nothing of what the adaptive lane has learned, hence the replay.
    "master": {
        "rank": 16,
        "alpha": 32,
        "dropout": 0.05,
        "learning_rate": 2e-4,
        "epochs": 3,
        "batch_size": 4,
        "cycles": 3,
        "replay": 500,
        "lineage": "fresh",
    },
}
"""Where a lane's defaults differ from those that `Configuration` names, which suit 50 new examples with a replay of as many."""


class Configuration(BaseModel):
    """Hyperparameters of one run, as an event tells them: of the right kinds, in whatever ranges held when the event was written.

    LoRA on the named projections with rank `rank` and scale `alpha / rank` (Hu et al. 2021, arXiv:2106.09685), bias "none".
    A step takes `batch_size` examples times `accumulation`; epochs are passes over new and replayed examples together.
    """

    # An event that is given a `TrainingConfig` says the same as one that was read.
    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="subclass-instances")

    lane: Annotated[Lane, Field(description="whose ranges and defaults hold")] = "adaptive"
    rank: Annotated[int, Field(description="rank of the adapter's matrices")] = 8
    alpha: Annotated[int, Field(description="the adapter's scale is alpha / rank")] = 16
    dropout: Annotated[float, Field(description="on the adapter's input")] = 0.0
    targets: Annotated[tuple[str, ...], Field(description="projections that are adapted")] = ATTENTION
    layers: Annotated[int | None, Field(description="how many decoder layers are adapted, the last ones; all where not said")] = None
    learning_rate: Annotated[float, Field(description="the highest, after the warm-up")] = 1e-3
    epochs: Annotated[int, Field(description="passes over new and replayed examples together")] = 2
    batch_size: Annotated[int, Field(description="examples in a forward pass")] = 10
    warmup_ratio: Annotated[float, Field(description="share of the steps in which the rate rises")] = 0.05
    max_gradient_norm: Annotated[float, Field(description="longer gradients are shortened to it")] = 0.3
    max_tokens: Annotated[int, Field(description="longer examples are cut")] = 1024
    replay: Annotated[int, Field(description="examples of earlier batches that are learned again")] = 50
    lineage: Annotated[Lineage, Field(description="start from the champion's adapter, or from the base")] = "continue"
    precision: Annotated[Literal["auto", "bf16", "fp16", "fp32"], Field(description="of the numbers that training computes with")] = "auto"
    quantisation: Annotated[Literal["none", "nf4"], Field(description="how the frozen base is held while training")] = "none"
    gradient_checkpointing: Annotated[bool, Field(description="keep less between forward and backward; on by itself with nf4")] = False
    cycles: Annotated[int, Field(description="cosines down from the full rate; more than one are restarts")] = 1
    dpo_pairs: Annotated[int, Field(description="preference pairs in a batch from which on they are learned as such")] = 30
    kto_negatives: Annotated[int, Field(description="unpaired negatives in a batch from which on they are unlearned")] = 10
    beta: Annotated[float, Field(description="how far DPO and KTO may lead away from the parent")] = 0.1
    save_steps: Annotated[int, Field(description="steps between two savings of a run")] = 100
    save_minutes: Annotated[float, Field(description="minutes between two savings of a run")] = 5.0
    seed: Annotated[int, Field(description="of the order of examples and of the adapter's first values")] = 0

    @property
    def accumulation(self) -> int:
        """Batches whose gradients are added up before a step, so that small batches step about as often as batches of 8."""
        return max(1, 8 // max(1, self.batch_size))


class TrainingConfig(Configuration):
    """A configuration to train with: what is left out has its lane's default, and every number is in its lane's range.

    ValidationError names field, value, range and lane.
    """

    targets: Annotated[tuple[str, ...], Field(min_length=1, description="projections that are adapted")] = ATTENTION
    layers: Annotated[int | None, Field(ge=1, description="how many decoder layers are adapted, the last ones; all where not said")] = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_lane(cls, said: Any) -> Any:
        if not isinstance(said, Mapping):
            return said
        lane = said.get("lane", "adaptive")
        filled = {**DEFAULTS[lane], **said} if lane in get_args(Lane) else dict(said)
        if filled.get("quantisation") == "nf4":
            filled.setdefault("gradient_checkpointing", True)
        return filled

    @field_validator(*RANGES["adaptive"])
    @classmethod
    def _in_the_range_of_the_lane(cls, value: float, info: ValidationInfo) -> float:
        lane: Lane | None = info.data.get("lane")
        assert info.field_name is not None
        if lane is not None and not (allowed := RANGES[lane][info.field_name]).least <= value <= allowed.most:
            raise PydanticCustomError(
                "outside_the_lane",
                "{field} {value} is outside {least} to {most}, the range of the lane {lane}",
                {"field": info.field_name, "value": str(value), "lane": lane, "least": f"{allowed.least:g}", "most": f"{allowed.most:g}"},
            )
        return value
