"""How much memory a run needs, told before anything is loaded; pure. Sizes are bytes.

Formulas, and where they are from:
- weights in 4 bits: 4 bits, an 8-bit scale for each 64 of them, an fp32 scale for each 256 of those
  (QLoRA, arXiv:2305.14314, section 3);
- adapter: rank × (inputs + outputs) of each projection (LoRA, arXiv:2106.09685, section 4.1), in
  fp32, with as large a gradient, and AdamW's two moments (arXiv:1711.05101);
- activations: what PyTorch keeps of a decoder layer for the backward pass when the weights are
  frozen, counted per token as Korthikanti et al. do (arXiv:2205.05198, section 4), with attention
  that keeps no matrix of scores; with checkpointing the inputs of the layers, and one layer's
  activations at a time (section 5);
- what an adapted projection is given, in the precision of its product: once for those that are
  given the same, unless dropout or a cast makes a copy for each;
- what the layers below the adapted ones make of the examples, which is kept from epoch to epoch as
  long as there is room for it;
- logits: at the positions before answer tokens only. Where examples are packed, of some tokens at a
  time, as computed, in fp32, and as powers; else of all of them, with their softmax and its
  gradient in fp32.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from shared.config.training import TrainingConfig

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
UNLIMITED = 1 << 62
"""A limit that nothing reaches, where how much there is cannot be told."""

LOGIT_CHUNK = 1 << 24
"""64 MiB in fp32."""

FROZEN_CACHE_BYTES = 256 << 20
"""What a run remembers of the layers below the adapted ones, at most."""

WORKSPACE_BYTES = 64 << 20
"""What a step needs besides: buffers of the kernels, the examples themselves."""


def lm_head_chunk_tokens(vocabulary: int) -> int:
    """Tokens whose logits are in memory together: so many that their product is a fast one."""
    return max(1, LOGIT_CHUNK // vocabulary)


@dataclass(frozen=True)
class ModelShape:
    """A base's measures. `tensors` are the shapes of its weights by name, [outputs, inputs] for a
    projection; `packed` says whether examples are computed in one row.
    """

    tensors: Mapping[str, tuple[int, ...]]
    layers: int
    hidden: int
    intermediate: int
    heads: int
    head_size: int
    vocabulary: int
    packed: bool = True

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.tensors.values()))

    def projections(
        self, targets: Sequence[str] | None = None, layers: int | None = None
    ) -> list[tuple[int, ...]]:
        """The matrices within the decoder's layers, all of them or those of the named projections
        and of the last `layers`.
        """
        first = self.layers - self.adapted_layers(layers)
        return [
            shape
            for name, shape in self.tensors.items()
            if len(shape) == 2
            and ".layers." in name
            and (targets is None or name.split(".")[-2] in targets)
            and int(name.split(".layers.")[1].split(".")[0]) >= first
        ]

    def adapted_layers(self, layers: int | None) -> int:
        """How many layers are adapted where the last `layers` are to be, or all."""
        return self.layers if layers is None else min(layers, self.layers)


@dataclass(frozen=True)
class BatchTokens:
    """What is in memory at a time: tokens of one batch with its padding, and how many of them are
    predicted answer tokens.
    """

    tokens: int
    answer_tokens: int

    @staticmethod
    def largest(
        lengths: Sequence[tuple[int, int]], batch_size: int, max_tokens: int
    ) -> "BatchTokens":
        """The most that one batch of examples can be: `lengths` are tokens and answer tokens of
        each. Where there are none, all are as long as may be, and one half of each is its answer.
        """
        cut = [
            (min(tokens, max_tokens), min(answer, max_tokens)) for tokens, answer in lengths
        ] or [(max_tokens, max_tokens // 2)] * batch_size
        rows = min(batch_size, len(cut))
        longest = max(tokens for tokens, _ in cut)
        return BatchTokens(
            rows * longest, sum(sorted((answer for _, answer in cut), reverse=True)[:rows])
        )


@dataclass(frozen=True)
class MemoryNeeds:
    """The parts of a run's memory. `judge` is the base in fp32, which examines; `training` the copy
    that is trained on.
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
    """What a run needs. `precision` is that of the device, where the configuration leaves it open."""
    chosen = precision if config.precision == "auto" else config.precision
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
        train_model=_training_copy(shape, chosen, in_4_bits),
        adapter=adapter,
        gradients=adapter,
        optimizer=2 * adapter,
        activations=_activations(shape, config, chosen, in_4_bits, batch.tokens),
        logits=_logits(shape, chosen, batch.answer_tokens),
        frozen_cache=FROZEN_CACHE_BYTES
        if shape.packed and shape.adapted_layers(config.layers) < shape.layers
        else 0,
    )


def _training_copy(shape: ModelShape, precision: str, in_4_bits: bool) -> int:
    """Nothing in fp32: the judge is trained on. In 4 bits all but the projections is fp32."""
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
    size = 4 if in_4_bits else DTYPE_BYTES[precision]  # around layers in 4 bits everything is fp32
    attention = shape.heads * shape.head_size
    norms = 2 * 4 * shape.hidden
    each = DTYPE_BYTES[precision] + (config.dropout > 0)  # with the mask of what was dropped
    copied = in_4_bits or config.dropout > 0

    def given(width: int, *names: str) -> int:
        adapted = len(set(names) & set(config.targets))
        return each * width * (adapted if copied else min(adapted, 1))

    inputs = given(shape.hidden, "q_proj", "k_proj", "v_proj") + given(attention, "o_proj")
    inputs += given(shape.hidden, "gate_proj", "up_proj") + given(shape.intermediate, "down_proj")
    layer = norms + inputs + size * (4 * attention + 3 * shape.intermediate)
    layers = shape.adapted_layers(
        config.layers
    )  # of those below nothing is kept: the backward pass ends above them
    if config.gradient_checkpointing:
        return tokens * (layers * size * shape.hidden + layer)
    return tokens * layers * layer


@dataclass(frozen=True)
class FittingConfig:
    """A configuration that fits, and in words what is other about it."""

    config: TrainingConfig
    description: str


def smallest_change(
    shape: ModelShape,
    config: TrainingConfig,
    precision: str,
    lengths: Sequence[tuple[int, int]],
    limit: int,
) -> FittingConfig | None:
    """The first that fits of the changes below, None when none does. They are in the order of how
    much they change of what is learned: nothing, nothing but the number of batches in a step, the
    precision of the base, what the examples say.
    """
    for advice in candidate_changes(
        config, max((tokens for tokens, _ in lengths), default=config.max_tokens)
    ):
        if (
            estimate_needs(
                shape,
                advice.config,
                precision,
                BatchTokens.largest(lengths, advice.config.batch_size, advice.config.max_tokens),
            ).total
            <= limit
        ):
            return advice
    return None


def candidate_changes(config: TrainingConfig, longest: int) -> Iterator[FittingConfig]:
    def changed(**to: object) -> FittingConfig:
        words = ", ".join(f"{name}: {str(value).lower()}" for name, value in to.items())
        return FittingConfig(config.model_copy(update=to), words)

    sizes = [size for size in range(config.batch_size - 1, 0, -1) if 8 % size == 0 or size > 8]
    if not config.gradient_checkpointing:
        yield changed(gradient_checkpointing=True)
    for size in sizes:
        yield changed(batch_size=size)
    for size in sizes:
        yield changed(gradient_checkpointing=True, batch_size=size)
    if config.quantisation == "none":
        yield changed(quantisation="nf4", gradient_checkpointing=True)
        for size in sizes:
            yield changed(quantisation="nf4", gradient_checkpointing=True, batch_size=size)
    shorter = min(longest, config.max_tokens)
    while (shorter := shorter * 3 // 4) >= 16:
        yield changed(gradient_checkpointing=True, batch_size=1, max_tokens=shorter)
        yield changed(
            quantisation="nf4", gradient_checkpointing=True, batch_size=1, max_tokens=shorter
        )


def memory_refusal(
    shape: ModelShape,
    config: TrainingConfig,
    precision: str,
    lengths: Sequence[tuple[int, int]],
    limit: int,
) -> tuple[str, str] | None:
    """Why a run cannot fit into `limit`, and what would make it fit; None when it fits."""
    needs = estimate_needs(
        shape, config, precision, BatchTokens.largest(lengths, config.batch_size, config.max_tokens)
    )
    if needs.total <= limit:
        return None
    reason = (
        f"the run needs about {format_bytes(needs.total)} of memory, and there are {format_bytes(limit)}: "
        f"weights {format_bytes(needs.eval_model + needs.train_model)}, adapter "
        f"{format_bytes(needs.adapter + needs.gradients + needs.optimizer)}, "
        f"activations {format_bytes(needs.activations)}, logits {format_bytes(needs.logits)}"
        + (
            f", what is below the adapted layers {format_bytes(needs.frozen_cache)}"
            if needs.frozen_cache
            else ""
        )
    )
    advice = smallest_change(shape, config, precision, lengths, limit)
    if advice is None:
        return (
            reason,
            "no setting of the lane makes it fit: a smaller base, or a machine with more memory",
        )
    return reason, f"it fits with {advice.description}"


def format_bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
