"""Reward policy of a model file."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat, JsonValue

from shared.config.answer_format import checked_pattern, checked_schema
from shared.events import FrozenModel, Reward

Weight = Annotated[FiniteFloat, Field(ge=0)]


class ActionRewards(FrozenModel):
    """Reward of each user action on an answer."""

    thumbs_up: Annotated[Reward, Field(description="reward of an approval")] = 1.0
    thumbs_down: Annotated[Reward, Field(description="reward of a disapproval")] = -1.0
    accepted: Annotated[Reward, Field(description="reward of an answer that was used")] = 1.0
    regenerated: Annotated[
        Reward, Field(description="reward of an answer that the user replaced by another")
    ] = -0.5


class RewardPolicy(FrozenModel):
    """Weights of a reward's parts, the reward of each action, and the required answer format."""

    name: Annotated[str, Field(description="name of the policy, recorded with every reward")] = (
        "default"
    )
    version: Annotated[
        int,
        Field(
            ge=1,
            description="version of the policy, recorded with every reward: raise it with each "
            "change",
        ),
    ] = 1
    validation: Annotated[Weight, Field(description="weight of validation_score")] = 1.0
    action: Annotated[Weight, Field(description="weight of the user's action")] = 1.0
    correction: Annotated[Weight | None, Field(description="default: the weight of action")] = None
    rules: Annotated[
        Weight,
        Field(description="weight of broken rules, such as an empty answer or another format"),
    ] = 0.5
    actions: Annotated[ActionRewards, Field(description="reward of each action")] = ActionRewards()
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
