"""Curation settings of a model file: when a batch closes, and the limits on its examples."""

from math import ceil
from typing import Annotated, Any

from pydantic import (
    Field,
    FiniteFloat,
    model_validator,
)

from shared.config.renamed_keys import both_names, without_duplicate_keys
from shared.events import FrozenModel, Id, Share

DEFAULT_WAITING_BYTES = 32 << 20


class CurationSettings(FrozenModel):
    """Rules for training examples and for closing a batch."""

    batch_size: Annotated[
        int,
        Field(
            ge=2,
            le=10_000,
            description="number of examples that closes a batch, held-out ones not counted",
        ),
    ] = 50
    minimum_quality: Annotated[
        Share,
        Field(
            description="lowest quality of an example: 1 for a correction, else (reward + 1) / 2"
        ),
    ] = 0.6
    similarity: Annotated[
        FiniteFloat,
        Field(
            gt=0,
            le=1,
            description="similarity from which two examples count as near-duplicates",
        ),
    ] = 0.9
    held_out_share: Annotated[
        FiniteFloat,
        Field(
            ge=0,
            lt=1,
            description="share of the prompts whose examples are held out for evaluation",
        ),
    ] = 0.1
    deduplicate_days: Annotated[
        int,
        Field(
            ge=1, description="days for which an example is remembered, to find duplicates of it"
        ),
    ] = 7
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
    examples_per_user: Annotated[
        int,
        Field(
            ge=1,
            description="maximum number of examples of one user in a batch; without a user_id, "
            "of one conversation",
        ),
    ] = 5
    examples_per_conversation: Annotated[
        int, Field(ge=1, description="maximum number of examples of one conversation in a batch")
    ] = 5
    user_share: Annotated[
        FiniteFloat,
        Field(gt=0, le=1, description="maximum share of one user in share_window batches"),
    ] = 0.1
    share_window: Annotated[
        int, Field(ge=1, le=1000, description="number of batches that user_share is measured over")
    ] = 10
    new_user_hours: Annotated[
        FiniteFloat,
        Field(
            ge=0,
            description="delay for the examples of a new user",
            validation_alias=both_names("curation", "new_user_hours"),
        ),
    ] = 0.0

    waiting_bytes_per_user: Annotated[
        int,
        Field(
            ge=1 << 20,
            description="maximum bytes of the texts of one user that wait in a shard; what comes "
            "beyond is dropped",
            exclude_if=lambda size: size == DEFAULT_WAITING_BYTES,
        ),
    ] = DEFAULT_WAITING_BYTES
    longest_text: Annotated[
        int | None,
        Field(
            ge=100,
            description="maximum characters of a prompt, of an answer and of a correction; longer "
            "feedback is refused. Default: the size of a Kafka record limits it",
            exclude_if=lambda length: length is None,
        ),
    ] = None
    # Stored digests and policies of files without these keys stay the same.
    trusted_users: Annotated[
        tuple[Id, ...],
        Field(
            max_length=1000,
            description="users without examples_per_user, user_share and new_user_hours, for small "
            "teams",
            exclude_if=lambda users: not users,
        ),
    ] = ()

    @property
    def users_needed(self) -> int:
        """Smallest number of users, none of them trusted, whose feedback can fill every batch."""
        size = max(self.batch_size, self.pool or 0)
        if self.longest_wait_hours is not None:
            size = min(size, self.smallest_batch)
        return max(
            ceil(size / self.examples_per_user),
            ceil(size * self.share_window / self.window_quota),
        )

    @property
    def window_quota(self) -> int:
        """Maximum number of examples of one user in `share_window` batches."""
        return max(1, int(self.user_share * self.share_window * self.batch_size))

    @model_validator(mode="before")
    @classmethod
    def _one_spelling_per_key(cls, values: Any) -> Any:
        return without_duplicate_keys(values, "curation")
