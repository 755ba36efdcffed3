"""Curation settings of a model file: when a batch closes, and the limits on its examples."""

from typing import Annotated, Any

from pydantic import (
    Field,
    FiniteFloat,
    model_validator,
)

from shared.config.renamed_keys import both_names, without_duplicate_keys
from shared.events import FrozenModel, Share


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
            validation_alias=both_names("curation", "new_user_hours"),
        ),
    ] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _one_spelling_per_key(cls, values: Any) -> Any:
        return without_duplicate_keys(values, "curation")
