"""Training configuration of a lane: one frozen value, validated against the lane's ranges."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from shared.config.unknown_keys import unknown_key_text
from shared.errors import Misconfigured
from shared.events.hyperparameters import (
    ATTENTION_PROJECTIONS,
    Configuration,
    HyperparameterValue,
    Lane,
)


class Range(NamedTuple):
    """An inclusive range."""

    minimum: float
    maximum: float


COMMON_RANGES: Mapping[str, Range] = {
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

LANE_RANGES: Mapping[Lane, Mapping[str, Range]] = {
    "adaptive": {
        "rank": Range(4, 64),
        "alpha": Range(8, 128),
        "learning_rate": Range(1e-5, 5e-3),
        "epochs": Range(1, 50),
        **COMMON_RANGES,
    },
    "master": {
        "rank": Range(8, 64),
        "alpha": Range(16, 128),
        "learning_rate": Range(2e-5, 1e-3),
        "epochs": Range(1, 20),
        **COMMON_RANGES,
    },
}
"""Valid range of each number in a lane's configuration."""

MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")

LANE_DEFAULTS: Mapping[Lane, Mapping[str, Any]] = {
    # The recipe of the demo, for 50 corrections on a small base.
    "adaptive": {
        "targets": (*ATTENTION_PROJECTIONS, *MLP_PROJECTIONS),
        "epochs": 3,
        "batch_size": 5,
        "replay": 10,
        "dpo_pairs": 1000,
    },
    # A fresh lineage has learned nothing from the adaptive lane, hence the replay.
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
"""Defaults of a lane that differ from those of `Configuration`, which stay as they are: an event
that lacks a value was written when they applied. The trainer replaces some defaults by values that
suit the base and the device.
"""


class TrainingConfig(Configuration):
    """A validated training configuration.

    Omitted values get the default of their lane; every number has to be in the range of its lane.
    ValidationError names field, value, range and lane. `named` tells values that were given from
    defaults.
    """

    targets: Annotated[tuple[str, ...], Field(min_length=1, description="adapted projections")] = (
        ATTENTION_PROJECTIONS
    )
    layers: Annotated[
        int | None,
        Field(
            ge=1,
            description="number of adapted decoder layers, from the last; null, the default of "
            "the lane master: all",
        ),
    ] = None

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_of_the_lane(
        cls, values: Any, handler: ModelWrapValidatorHandler["TrainingConfig"]
    ) -> "TrainingConfig":
        if not isinstance(values, Mapping):
            return handler(values)
        lane = values.get("lane", "adaptive")
        filled = {**LANE_DEFAULTS[lane], **values} if lane in get_args(Lane) else dict(values)
        if filled.get("quantisation") == "nf4":
            filled.setdefault("gradient_checkpointing", True)
        config = handler(filled)
        object.__setattr__(config, "__pydantic_fields_set__", set(values))
        return config

    @property
    def named(self) -> frozenset[str]:
        """Names of the settings that were given, by a model file or a batch. The others have
        defaults.
        """
        return frozenset(self.model_fields_set - {"lane"})

    def with_former_defaults(self) -> "TrainingConfig":
        """Return the configuration that versions without `LANE_DEFAULTS` of the adaptive lane made
        of the same model file.
        """
        if self.lane != "adaptive":
            return self
        former = Configuration(gradient_checkpointing=self.gradient_checkpointing).model_dump()
        return TrainingConfig.model_validate(former | self.model_dump(include=set(self.named)))

    def with_values(self, changes: Mapping[str, Any]) -> "TrainingConfig":
        """Return a copy with some values changed, validated like any configuration. The lane stays.
        Raises Misconfigured that names each wrong value.
        """
        if "lane" in changes:
            raise Misconfigured("lane: it is no hyperparameter")
        values = self.model_dump(include=self.model_fields_set) | dict(changes)
        if "quantisation" in changes and "gradient_checkpointing" not in changes:
            values.pop("gradient_checkpointing", None)
        try:
            return TrainingConfig.model_validate(values)
        except ValidationError as error:
            raise Misconfigured("; ".join(map(_problem_text, error.errors()))) from error

    @field_validator(*LANE_RANGES["adaptive"])
    @classmethod
    def _in_the_range_of_the_lane(cls, value: float, info: ValidationInfo) -> float:
        lane: Lane | None = info.data.get("lane")
        assert info.field_name is not None
        if (
            lane is not None
            and not (allowed := LANE_RANGES[lane][info.field_name]).minimum
            <= value
            <= allowed.maximum
        ):
            raise PydanticCustomError(
                "outside_the_lane",
                "{field} {value} is outside {least} to {most}, the range of the lane {lane}",
                {
                    "field": info.field_name,
                    "value": str(value),
                    "lane": lane,
                    "least": f"{allowed.minimum:g}",
                    "most": f"{allowed.maximum:g}",
                },
            )
        return value


def parse_hyperparameter(name: str, text: str) -> HyperparameterValue:
    """Parse a value as a person writes it: a number, true, false, a word, or for `targets` names
    separated by commas.
    """
    if name == "targets":
        return tuple(target.strip() for target in text.split(","))
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _problem_text(problem: ErrorDetails) -> str:
    """Return a line that names the hyperparameter; for an unknown name, the known ones."""
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        known = [field for field in TrainingConfig.model_fields if field != "lane"]
        return f"{name}: {unknown_key_text(name, known, 'hyperparameter')}"
    return f"{name}: {problem['msg']}"
