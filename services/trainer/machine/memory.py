"""Estimate of a run's memory before anything is loaded. Pure; sizes are bytes.

Formulas and their sources:
- 4-bit weights: 4 bits, an 8-bit scale per 64 weights, an fp32 scale per 256 of those scales
  (QLoRA, arXiv:2305.14314, section 3);
- adapter: rank × (inputs + outputs) of each projection (LoRA, arXiv:2106.09685, section 4.1), in
  fp32, with a gradient of equal size and AdamW's two moments (arXiv:1711.05101);
- activations: tensors that PyTorch keeps per decoder layer for the backward pass when the weights
  are frozen, counted per token as in Korthikanti et al. (arXiv:2205.05198, section 4), with
  attention that does not store the score matrix; with checkpointing the inputs of all layers, and
  the activations of one layer at a time (section 5);
- inputs of adapted projections, in the precision of their product: once for projections with the
  same input, unless dropout or a cast makes a copy for each;
- output of the layers below the adapted ones, cached from epoch to epoch, and for the evaluation
  sets from run to run, up to a limit each;
- logits: only at positions that predict answer tokens. If examples are packed, for one chunk of
  tokens at a time, as computed, in fp32, and as exponentials; else for all tokens, with their
  softmax and its gradient in fp32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from shared.config.training import TrainingConfig
from shared.storage.base_projections import match_targets, projection_names

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
UNLIMITED = 1 << 62
"""Limit for systems that do not report their memory."""

LOGIT_CHUNK = 1 << 24
"""64 MiB in fp32."""

FROZEN_CACHE_BYTES = 256 << 20
"""Maximum size of the cache for layers below the adapted ones, during training."""

EVALUATION_CACHE_BYTES = 128 << 20
"""Maximum size of the same cache for the evaluation sets, which is kept from run to run."""

WORKSPACE_BYTES = 64 << 20
"""Further memory of a step: kernel buffers and the examples."""


def lm_head_chunk_tokens(vocabulary: int) -> int:
    """Return the number of tokens whose logits are computed together: enough for an efficient
    matrix product.
    """
    return max(1, LOGIT_CHUNK // vocabulary)


@dataclass(frozen=True)
class ModelShape:
    """A base's dimensions. `model_type` is the architecture of its language model.

    `tensors` are the shapes of its weights by name, [outputs, inputs] for a projection. `packed` is
    True if examples are computed in one row.
    """

    tensors: Mapping[str, tuple[int, ...]]
    layers: int
    hidden: int
    intermediate: int
    heads: int
    head_size: int
    vocabulary: int
    packed: bool = True
    model_type: str = ""

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.tensors.values()))

    def projections(
        self, targets: Sequence[str] | None = None, layers: int | None = None
    ) -> list[tuple[int, ...]]:
        """Return the shapes of matrices in decoder layers: all of them, or those of the named
        projections and the last `layers`.
        """
        if targets is None:
            return [
                shape
                for name, shape in self.tensors.items()
                if len(shape) == 2 and ".layers." in name
            ]
        matched = {name for names in self.matched(targets, layers).values() for name in names}
        return [self.tensors[f"{name}.weight"] for name in matched]

    def matched(
        self, targets: Sequence[str], layers: int | None = None
    ) -> Mapping[str, Sequence[str]]:
        """Return the projections that each target names, in the last `layers`."""
        adapted = range(self.layers - self.adapted_layers(layers), self.layers)
        return match_targets(projection_names(self.tensors), self.model_type, targets, adapted)

    def adapted_layers(self, layers: int | None) -> int:
        """Return the number of layers that a lane with this setting adapts; None means all."""
        return self.layers if layers is None else min(layers, self.layers)


@dataclass(frozen=True)
class BatchTokens:
    """Token counts of one batch: all tokens including padding, and predicted answer tokens."""

    tokens: int
    answer_tokens: int

    @staticmethod
    def largest(
        lengths: Sequence[tuple[int, int]], batch_size: int, max_tokens: int
    ) -> "BatchTokens":
        """Return the largest batch that examples can form.

        `lengths` are (tokens, answer tokens) per example. Without examples, all have the maximum
        length, and half of each is its answer.
        """
        truncated = [
            (min(tokens, max_tokens), min(answer, max_tokens)) for tokens, answer in lengths
        ] or [(max_tokens, max_tokens // 2)] * batch_size
        rows = min(batch_size, len(truncated))
        longest = max(tokens for tokens, _ in truncated)
        return BatchTokens(
            rows * longest, sum(sorted((answer for _, answer in truncated), reverse=True)[:rows])
        )


@dataclass(frozen=True)
class MemoryNeeds:
    """The parts of a run's memory. `eval_model` is the fp32 base for evaluation, `train_model` the
    copy for training.
    """

    eval_model: int
    train_model: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    frozen_cache: int

    @property
    def total(self) -> int:
        learned = self.adapter + self.gradients + self.optimizer
        return (
            self.eval_model
            + self.train_model
            + learned
            + self.activations
            + self.logits
            + self.frozen_cache
            + WORKSPACE_BYTES
        )


def estimate_needs(
    shape: ModelShape, config: TrainingConfig, precision: str, batch: BatchTokens
) -> MemoryNeeds:
    """Estimate a run's memory. `precision` is that of the device and applies if the configuration
    says `auto`.
    """
    resolved_precision = precision if config.precision == "auto" else config.precision
    in_4_bits = config.quantisation == "nf4"
    adapter = (
        4
        * config.rank
        * sum(
            inputs + outputs for outputs, inputs in shape.projections(config.targets, config.layers)
        )
    )
    return MemoryNeeds(
        eval_model=4 * shape.parameters,
        train_model=_training_copy(shape, resolved_precision, in_4_bits),
        adapter=adapter,
        gradients=adapter,
        optimizer=2 * adapter,
        activations=_activations(shape, config, resolved_precision, in_4_bits, batch.tokens),
        logits=_logits(shape, resolved_precision, batch.answer_tokens),
        frozen_cache=FROZEN_CACHE_BYTES + EVALUATION_CACHE_BYTES
        if shape.packed and shape.adapted_layers(config.layers) < shape.layers
        else 0,
    )


def _training_copy(shape: ModelShape, precision: str, in_4_bits: bool) -> int:
    """Return the size of the training copy: 0 in fp32, where the evaluation model is trained. In 4
    bits everything except the projections is fp32.
    """
    if in_4_bits:
        projections = sum(map(prod, shape.projections()))
        return round(NF4_BYTES * projections) + 4 * (shape.parameters - projections)
    return 0 if precision == "fp32" else DTYPE_BYTES[precision] * shape.parameters


def _logits(shape: ModelShape, precision: str, tokens: int) -> int:
    size = DTYPE_BYTES[precision]
    if not shape.packed:
        return (size + 3 * 4) * shape.vocabulary * tokens
    return (2 * size + 4) * shape.vocabulary * min(
        tokens, lm_head_chunk_tokens(shape.vocabulary)
    ) + size * shape.hidden * tokens


def _activations(
    shape: ModelShape, config: TrainingConfig, precision: str, in_4_bits: bool, tokens: int
) -> int:
    size = 4 if in_4_bits else DTYPE_BYTES[precision]  # around 4-bit layers everything is fp32
    attention = shape.heads * shape.head_size
    norms = 2 * 4 * shape.hidden
    input_bytes = DTYPE_BYTES[precision] + (config.dropout > 0)  # with the dropout mask
    copies_inputs = in_4_bits or config.dropout > 0

    def given(width: int, *names: str) -> int:
        adapted = len(set(names) & set(config.targets))
        return input_bytes * width * (adapted if copies_inputs else min(adapted, 1))

    inputs = given(shape.hidden, "q_proj", "k_proj", "v_proj") + given(attention, "o_proj")
    inputs += given(shape.hidden, "gate_proj", "up_proj") + given(shape.intermediate, "down_proj")
    layer = norms + inputs + size * (4 * attention + 3 * shape.intermediate)
    # Layers below the adapted ones keep no activations: the backward pass ends above them.
    layers = shape.adapted_layers(config.layers)
    if config.gradient_checkpointing:
        return tokens * (layers * size * shape.hidden + layer)
    return tokens * layers * layer


def format_bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
