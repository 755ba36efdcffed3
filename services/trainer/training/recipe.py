"""The training recipe, readable from top to bottom.

LoRA weights (Hu et al. 2021, arXiv:2106.09685) on a frozen base are trained with the objectives of
`objective_data.py`: AdamW, linear warm-up followed by cosine decay, clipped gradients. All
randomness comes from the seed, and a checkpoint contains all state that a step changes: an
interrupted run continues as if it had not been interrupted.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import torch

from services.trainer.data.tokenization import EncodedExample
from services.trainer.errors import LOWER_LEARNING_RATE, RunFailed
from services.trainer.protocol import Stepped, Trained
from services.trainer.training.base_model import needs_loss_scaling
from services.trainer.training.checkpoints import Checkpoints, OptimizerState, TrainingState
from services.trainer.training.divergence import divergence_reason
from services.trainer.training.losses import supervised
from services.trainer.training.preferences import (
    EncodedPair,
    JudgedAnswer,
    Preferences,
    answer_likelihoods,
)
from shared.config.training import TrainingConfig

OnStep = Callable[[Stepped], None]

SLOW_STEP_SECONDS = 30.0
"""A step of this duration is saved at once: a checkpoint takes far less time than the step, which a
stop that does not wait for the next one would lose.
"""


class TrainingInterrupted(Exception):
    """Training was stopped on request; its state after `step` steps is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


def train(
    model: Any,
    examples: Sequence[EncodedExample],
    config: TrainingConfig,
    device: str,
    on_step: OnStep,
    *,
    pairs: Sequence[EncodedPair] = (),
    judged: Sequence[JudgedAnswer] = (),
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = perf_counter,
) -> Trained:
    """Train the parameters of `model` that require gradients, from the newest checkpoint on.

    Raises RunFailed if a loss or gradient is not finite or the run diverges, TrainingInterrupted if
    `should_stop` returns True after a step (only with `checkpoints`), OSError if a checkpoint
    cannot be written.
    """
    torch.manual_seed(config.seed)
    parameters = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=0.0)
    scaler = torch.amp.GradScaler(device, enabled=needs_loss_scaling(model))
    optimizer_state = OptimizerState(parameters, optimizer, scaler)
    epoch_steps = math.ceil(len(examples) / (config.batch_size * config.accumulation))
    total_steps = config.epochs * epoch_steps
    model.eval()
    preferences = Preferences(model, pairs, judged, config, device, epoch_steps)
    state = checkpoints.resume(optimizer_state) if checkpoints else TrainingState()
    saved = stepped_at = clock()
    started = saved - state.seconds
    model.train()
    for epoch in range(state.steps // epoch_steps, config.epochs):
        order = step_batches(examples, config, epoch)
        for step in range(state.steps % epoch_steps, epoch_steps):
            rate = learning_rate(state.steps, total_steps, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _backward(scaler, _example_losses(model, order[step], config, device))
            preference_loss = _backward(scaler, preferences.pair_losses(model, epoch, step))
            judged_loss = _backward(scaler, preferences.judged_losses(model, epoch, step))
            scaler.unscale_(optimizer)
            norm = float(
                torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_gradient_norm)
            )
            assert loss is not None, "a step has examples"
            finite = all(
                math.isfinite(value)
                for value in (loss, preference_loss, judged_loss)
                if value is not None
            )
            if not finite or (not math.isfinite(norm) and not scaler.is_enabled()):
                raise RunFailed(
                    f"step {state.steps + 1}: loss {loss}, gradient norm {norm}",
                    LOWER_LEARNING_RATE,
                )
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            now = clock()
            state = TrainingState(
                losses=(*state.losses, loss),
                norms=(*state.norms, norm if math.isfinite(norm) else None),
                tokens=state.tokens
                + sum(len(example.ids) for example in order[step])
                + preferences.tokens(epoch, step),
                seconds=now - started,
            )
            step_seconds, stepped_at = now - stepped_at, now
            on_step(
                Stepped(
                    step=state.steps,
                    total_steps=total_steps,
                    loss=loss,
                    learning_rate=rate,
                    gradient_norm=state.norms[-1],
                    tokens_per_second=state.tokens / state.seconds,
                    seconds_left=state.seconds / state.steps * (total_steps - state.steps),
                    preference_loss=preference_loss,
                    judged_loss=judged_loss,
                )
            )
            reason = divergence_reason(
                state.losses, state.norms, config.max_gradient_norm, epoch_steps
            )
            if reason:
                raise RunFailed(f"training diverged: {reason}", LOWER_LEARNING_RATE)
            if checkpoints and state.steps < total_steps:
                stop = should_stop()
                if (
                    stop
                    or state.steps % config.save_steps == 0
                    or now - saved >= 60 * config.save_minutes
                    or step_seconds >= SLOW_STEP_SECONDS
                ):
                    checkpoints.save(optimizer_state, state)
                    saved = stepped_at = clock()
                if stop:
                    raise TrainingInterrupted(state.steps)
    model.eval()
    last_epoch = state.losses[-epoch_steps:]
    return Trained(
        training_loss=sum(last_epoch) / len(last_epoch),
        steps=state.steps,
        tokens=state.tokens,
        seconds=state.seconds,
    )


def _example_losses(
    model: Any, group: Sequence[EncodedExample], config: TrainingConfig, device: str
) -> Iterator[torch.Tensor]:
    """Yield the loss of a step's examples, in parts that fit into memory."""
    total_weight = sum(example.weight * example.answer_tokens for example in group)
    for start in range(0, len(group), config.batch_size):
        chunk = group[start : start + config.batch_size]
        weights = torch.tensor([example.weight for example in chunk], device=device)
        yield supervised(answer_likelihoods(model, chunk, device), weights, total_weight)


def _backward(scaler: torch.amp.GradScaler, losses: Iterator[torch.Tensor]) -> float | None:
    """Accumulate the gradients of losses. Return their sum, or None if there are no losses. Only
    one part's activations are in memory at a time.
    """
    total = None
    for loss in losses:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no types for backward
        total = float(loss.detach()) + (total or 0.0)
    return total


def step_batches(
    examples: Sequence[EncodedExample], config: TrainingConfig, epoch: int
) -> list[list[EncodedExample]]:
    """Return the examples of each step of an epoch: sorted by length to reduce padding, with the
    order of the steps shuffled.

    A step's examples do not depend on how `batch_size` and `accumulation` divide it.
    """
    size = config.batch_size * config.accumulation
    by_length = sorted(examples, key=lambda example: len(example.ids))
    order = torch.randperm(
        math.ceil(len(by_length) / size),
        generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch),
    )
    return [by_length[index * size : (index + 1) * size] for index in order.tolist()]


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Compute the rate of a step, counted from 0: a linear warm-up to the configured rate, then
    `cycles` half cosines down towards zero (Loshchilov & Hutter 2017, arXiv:1608.03983, with cycles
    of equal length).
    """
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (config.cycles * progress % 1)))
