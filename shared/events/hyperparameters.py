"""Hyperparameters of a training run as events carry them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Lane = Literal["adaptive", "master"]


Lineage = Literal["continue", "fresh"]


ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Configuration(BaseModel):
    """Hyperparameters of one run, as an event tells them: of the right kinds, in whatever ranges
    held when the event was written.

    LoRA on the named projections with rank `rank` and scale `alpha / rank` (Hu et al. 2021,
    arXiv:2106.09685), bias "none". A step takes `batch_size` examples times `accumulation`; epochs
    are passes over new and replayed examples together.
    """

    # An event that is given a `TrainingConfig` says the same as one that was read.
    model_config = ConfigDict(
        frozen=True, extra="forbid", revalidate_instances="subclass-instances"
    )

    lane: Annotated[Lane, Field(description="whose ranges and defaults hold")] = "adaptive"
    rank: Annotated[int, Field(description="rank of the adapter's matrices")] = 8
    alpha: Annotated[int, Field(description="the adapter's scale is alpha / rank")] = 16
    dropout: Annotated[float, Field(description="on the adapter's input")] = 0.0
    targets: Annotated[tuple[str, ...], Field(description="projections that are adapted")] = (
        ATTENTION_PROJECTIONS
    )
    layers: Annotated[
        int | None,
        Field(description="how many decoder layers are adapted, the last ones; all where not said"),
    ] = None
    learning_rate: Annotated[float, Field(description="the highest, after the warm-up")] = 1e-3
    epochs: Annotated[int, Field(description="passes over new and replayed examples together")] = 2
    batch_size: Annotated[int, Field(description="examples in a forward pass")] = 10
    warmup_ratio: Annotated[
        float, Field(description="share of the steps in which the rate rises")
    ] = 0.05
    max_gradient_norm: Annotated[
        float, Field(description="longer gradients are shortened to it")
    ] = 0.3
    max_tokens: Annotated[int, Field(description="longer examples are cut")] = 1024
    replay: Annotated[
        int, Field(description="examples of earlier batches that are learned again")
    ] = 50
    lineage: Annotated[
        Lineage, Field(description="start from the champion's adapter, or from the base")
    ] = "continue"
    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"],
        Field(description="of the numbers that training computes with"),
    ] = "auto"
    quantisation: Annotated[
        Literal["none", "nf4"], Field(description="how the frozen base is held while training")
    ] = "none"
    gradient_checkpointing: Annotated[
        bool, Field(description="keep less between forward and backward; on by itself with nf4")
    ] = False
    cycles: Annotated[
        int, Field(description="cosines down from the full rate; more than one are restarts")
    ] = 1
    dpo_pairs: Annotated[
        int, Field(description="preference pairs in a batch from which on they are learned as such")
    ] = 30
    kto_negatives: Annotated[
        int, Field(description="unpaired negatives in a batch from which on they are unlearned")
    ] = 10
    beta: Annotated[
        float, Field(description="how far DPO and KTO may lead away from the parent")
    ] = 0.1
    save_steps: Annotated[int, Field(description="steps between two savings of a run")] = 100
    save_minutes: Annotated[float, Field(description="minutes between two savings of a run")] = 5.0
    seed: Annotated[
        int, Field(description="of the order of examples and of the adapter's first values")
    ] = 0

    @property
    def accumulation(self) -> int:
        """Batches whose gradients are added up before a step, so that small batches step about as
        often as batches of 8.
        """
        return max(1, 8 // max(1, self.batch_size))
