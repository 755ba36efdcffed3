"""Reward policy of a model file."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat, JsonValue

from shared.config.answer_format import checked_pattern, checked_schema
from shared.events import FrozenModel, Reward

Weight = Annotated[FiniteFloat, Field(ge=0)]


class ActionRewards(FrozenModel):
    """Reward of each user action on an answer."""

    thumbs_up: Reward = 1.0
    thumbs_down: Reward = -1.0
    accepted: Reward = 1.0
    regenerated: Reward = -0.5


class RewardPolicy(FrozenModel):
    """Weights of a reward's parts, the reward of each action, and the required answer format."""

    name: str = "default"
    version: Annotated[int, Field(ge=1)] = 1
    validation: Weight = 1.0
    action: Weight = 1.0
    correction: Annotated[Weight | None, Field(description="default: the weight of action")] = None
    rules: Weight = 0.5
    actions: ActionRewards = ActionRewards()
    format: Annotated[
        Literal["json"] | None,
        Field(description="json: the answer has to be a JSON object"),
    ] = None
    json_schema: Annotated[
        Annotated[Mapping[str, JsonValue], AfterValidator(checked_schema)] | None,
        Field(description="JSON Schema that the answer has to satisfy"),
    ] = None
    pattern: Annotated[
        Annotated[str, AfterValidator(checked_pattern)] | None,
        Field(
            description="regular expression that has to match a part of the answer; ^ and $ anchor "
            "it to the whole"
        ),
    ] = None

    @property
    def correction_weight(self) -> float:
        return self.action if self.correction is None else self.correction

    @property
    def summary(self) -> str:
        """The policy in one line."""
        weights = {
            "validation": self.validation,
            "action": self.action,
            "correction": self.correction_weight,
            "rules": self.rules,
        }
        requirements = {
            "JSON": self.format or self.json_schema,
            "a JSON Schema": self.json_schema,
            "a pattern": self.pattern,
        }
        required = [name for name, value in requirements.items() if value]
        weighted = ", ".join(f"{part} {weight:g}" for part, weight in weights.items())
        return (
            f"reward policy {self.name} v{self.version} ({weighted}; format: "
            f"{' and '.join(required) or 'any'})"
        )
