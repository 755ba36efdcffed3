"""Refusal of runs that do not fit into memory, with the smallest change that fits. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.trainer.machine.memory import BatchTokens, ModelShape, estimate_needs, format_bytes
from shared.config.training import TrainingConfig


@dataclass(frozen=True)
class FittingConfig:
    """A configuration that fits into memory, and a description of its changes."""

    config: TrainingConfig
    description: str


def smallest_change(
    shape: ModelShape,
    config: TrainingConfig,
    precision: str,
    lengths: Sequence[tuple[int, int]],
    limit: int,
) -> FittingConfig | None:
    """Return the first of the candidate changes that fits, None if none does.

    Candidates are ordered by their effect on the result: no effect, only the number of batches per
    step, the precision of the base, the length of the examples.
    """
    longest = max((tokens for tokens, _ in lengths), default=config.max_tokens)
    for candidate in _candidate_changes(config, longest):
        batch = BatchTokens.largest(
            lengths, candidate.config.batch_size, candidate.config.max_tokens
        )
        if estimate_needs(shape, candidate.config, precision, batch).total <= limit:
            return candidate
    return None


def _candidate_changes(config: TrainingConfig, longest: int) -> Iterator[FittingConfig]:
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
    """Return the reason why a run cannot fit into `limit` and a change that makes it fit; None if
    it fits.
    """
    required = estimate_needs(
        shape, config, precision, BatchTokens.largest(lengths, config.batch_size, config.max_tokens)
    )
    if required.total <= limit:
        return None
    reason = (
        f"the run needs about {format_bytes(required.total)} of memory, and the limit is "
        f"{format_bytes(limit)}: "
        f"weights {format_bytes(required.eval_model + required.train_model)}, adapter "
        f"{format_bytes(required.adapter + required.gradients + required.optimizer)}, "
        f"activations {format_bytes(required.activations)}, logits {format_bytes(required.logits)}"
        + (
            f", cache of the frozen layers {format_bytes(required.frozen_cache)}"
            if required.frozen_cache
            else ""
        )
    )
    fitting = smallest_change(shape, config, precision, lengths, limit)
    if fitting is None:
        return (
            reason,
            "no lane setting makes it fit: use a smaller base, or a machine with more memory",
        )
    return reason, f"it fits with {fitting.description}"
