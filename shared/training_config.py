"""How a lane trains: one frozen value, checked when it is made."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Lane = Literal["adaptive", "master"]
Lineage = Literal["continue", "fresh"]


class TrainingConfig(BaseModel):
    """Hyperparameters of one run.

    LoRA on the named projections with rank `rank` and scale `alpha / rank` (Hu et al. 2021, arXiv:2106.09685), bias "none".
    A step takes `batch_size` examples times `accumulation`; epochs are passes over new and replayed examples together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Annotated[int, Field(ge=1, le=64)] = 8
    alpha: Annotated[int, Field(ge=1, le=128)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    learning_rate: Annotated[float, Field(ge=1e-5, le=5e-3)] = 1e-3
    epochs: Annotated[int, Field(ge=1, le=50)] = 2
    batch_size: Annotated[int, Field(ge=1, le=256)] = 10
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_gradient_norm: Annotated[float, Field(gt=0)] = 0.3
    max_tokens: Annotated[int, Field(ge=16, le=131072)] = 1024
    replay: Annotated[int, Field(ge=0, le=10_000)] = 50
    lineage: Annotated[Lineage, Field(description="start from the champion's adapter, or from the base")] = "continue"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    quantisation: Annotated[Literal["none", "nf4"], Field(description="how the frozen base is held while training")] = "none"
    gradient_checkpointing: bool = False
    cycles: Annotated[int, Field(ge=1, le=100, description="cosines down from the full rate; more than one are restarts")] = 1
    dpo_pairs: Annotated[int, Field(ge=1, description="preference pairs in a batch from which on they are learned as such")] = 30
    kto_negatives: Annotated[int, Field(ge=1, description="unpaired negatives in a batch from which on they are unlearned")] = 10
    beta: Annotated[float, Field(gt=0, le=10, description="how far DPO and KTO may lead away from the parent")] = 0.1
    save_steps: Annotated[int, Field(ge=1)] = 100
    save_minutes: Annotated[float, Field(gt=0)] = 5.0
    seed: int = 0

    @property
    def accumulation(self) -> int:
        """Batches whose gradients are added up before a step, so that small batches step about as often as batches of 8."""
        return max(1, 8 // max(1, self.batch_size))
