"""Hyperparameters of a training run as events carry them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Lane = Literal["adaptive", "master"]


Lineage = Literal["continue", "fresh"]


HyperparameterValue = bool | int | float | str | tuple[str, ...]

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Configuration(BaseModel):
    """Hyperparameters of one run as recorded in an event: with valid types, in the ranges that
    applied when the event was written.

    LoRA on the named projections with rank `rank` and scale `alpha / rank` (Hu et al. 2021,
    arXiv:2106.09685), bias "none". A step takes `batch_size` examples times `accumulation`; epochs
    are passes over new and replayed examples together.
    """

    # Serialise a `TrainingConfig` in an event like a `Configuration`.
    model_config = ConfigDict(
        frozen=True, extra="forbid", revalidate_instances="subclass-instances"
    )

    lane: Annotated[Lane, Field(description="lane, which sets ranges and defaults")] = "adaptive"
    rank: Annotated[int, Field(description="LoRA rank")] = 8
    alpha: Annotated[int, Field(description="LoRA alpha; the scale is alpha / rank")] = 16
    dropout: Annotated[float, Field(description="dropout on the adapter's input")] = 0.0
    targets: Annotated[tuple[str, ...], Field(description="adapted projections")] = (
        ATTENTION_PROJECTIONS
    )
    layers: Annotated[
        int | None,
        Field(description="number of adapted decoder layers, from the last; default: all"),
    ] = None
    learning_rate: Annotated[float, Field(description="peak learning rate, after the warm-up")] = (
        1e-3
    )
    epochs: Annotated[int, Field(description="passes over new and replayed examples together")] = 2
    batch_size: Annotated[int, Field(description="examples per forward pass")] = 10
    warmup_ratio: Annotated[
        float, Field(description="share of the steps with a rising learning rate")
    ] = 0.05
    max_gradient_norm: Annotated[float, Field(description="gradient clipping: maximum norm")] = 0.3
    max_tokens: Annotated[
        int, Field(description="maximum length of an example in tokens; longer ones are truncated")
    ] = 1024
    replay: Annotated[int, Field(description="replayed examples of earlier batches")] = 50
    lineage: Annotated[
        Lineage,
        Field(description="start from the champion's adapter (continue) or from the base (fresh)"),
    ] = "continue"
    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"],
        Field(description="numeric precision of training"),
    ] = "auto"
    quantisation: Annotated[
        Literal["none", "nf4"], Field(description="quantisation of the frozen base during training")
    ] = "none"
    gradient_checkpointing: Annotated[
        bool, Field(description="recompute activations to save memory; on by default with nf4")
    ] = False
    cycles: Annotated[
        int,
        Field(description="cosine cycles of the learning rate; more than one are warm restarts"),
    ] = 1
    dpo_pairs: Annotated[
        int, Field(description="minimum number of preference pairs in a batch for DPO")
    ] = 30
    kto_negatives: Annotated[
        int, Field(description="minimum number of unpaired negatives in a batch for KTO")
    ] = 10
    beta: Annotated[
        float, Field(description="beta of DPO and KTO, which limits the deviation from the parent")
    ] = 0.1
    save_steps: Annotated[int, Field(description="steps between checkpoints")] = 100
    save_minutes: Annotated[float, Field(description="minutes between checkpoints")] = 5.0
    seed: Annotated[
        int, Field(description="seed of the example order and of the adapter's initial weights")
    ] = 0

    @property
    def accumulation(self) -> int:
        """Gradient accumulation: micro-batches per optimiser step, so that small batches take about
        as many steps as batches of 8.
        """
        return max(1, 8 // max(1, self.batch_size))
