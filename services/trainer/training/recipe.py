"""How an adapter is trained; reads from top to bottom.

LoRA weights (Hu et al. 2021, arXiv:2106.09685) on a frozen base learn by the objectives of
`objectives.py`: AdamW, a linear warm-up and then cosines, clipped gradients. Everything random
comes from the seed, and all that a step changes is in a checkpoint: a run that was cut off goes on
as if it had not been.
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


class TrainingInterrupted(Exception):
    """Training was told to stop; its state after `step` steps is saved."""

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
    """Train the parameters of `model` that ask for it, from where the newest of `checkpoints` ends.

    Raises RunFailed when a loss or a gradient is not a finite number or the run diverges,
    Interrupted when `stopping` says so after a step (with `checkpoints` only), OSError when the
    disk does not take a checkpoint.
    """
    torch.manual_seed(config.seed)
    parameters = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=0.0)
    scaler = torch.amp.GradScaler(device, enabled=needs_loss_scaling(model))
    learner = OptimizerState(parameters, optimizer, scaler)
    epoch_steps = math.ceil(len(examples) / (config.batch_size * config.accumulation))
    total_steps = config.epochs * epoch_steps
    model.eval()
    preferences = Preferences(model, pairs, judged, config, device, epoch_steps)
    course = checkpoints.resume(learner) if checkpoints else TrainingState()
    saved = clock()
    started = saved - course.seconds
    model.train()
    for epoch in range(course.steps // epoch_steps, config.epochs):
        order = step_batches(examples, config, epoch)
        for place in range(course.steps % epoch_steps, epoch_steps):
            rate = learning_rate(course.steps, total_steps, config)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            loss = _backward(scaler, _example_losses(model, order[place], config, device))
            preference_loss = _backward(scaler, preferences.pair_losses(model, epoch, place))
            judged_loss = _backward(scaler, preferences.judged_losses(model, epoch, place))
            scaler.unscale_(optimizer)
            norm = float(
                torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_gradient_norm)
            )
            assert loss is not None, "a step has examples"
            finite = all(
                math.isfinite(one)
                for one in (loss, preference_loss, judged_loss)
                if one is not None
            )
            if not finite or (not math.isfinite(norm) and not scaler.is_enabled()):
                raise RunFailed(
                    f"step {course.steps + 1}: loss {loss}, gradient norm {norm}",
                    LOWER_LEARNING_RATE,
                )
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            now = clock()
            course = TrainingState(
                losses=(*course.losses, loss),
                norms=(*course.norms, norm if math.isfinite(norm) else None),
                tokens=course.tokens
                + sum(len(example.ids) for example in order[place])
                + preferences.tokens(epoch, place),
                seconds=now - started,
            )
            on_step(
                Stepped(
                    step=course.steps,
                    total_steps=total_steps,
                    loss=loss,
                    learning_rate=rate,
                    gradient_norm=course.norms[-1],
                    tokens_per_second=course.tokens / course.seconds,
                    seconds_left=course.seconds / course.steps * (total_steps - course.steps),
                    preference_loss=preference_loss,
                    judged_loss=judged_loss,
                )
            )
            if trouble := divergence_reason(course.losses, course.norms):
                raise RunFailed(f"training diverged: {trouble}", LOWER_LEARNING_RATE)
            if checkpoints and course.steps < total_steps:
                stop = should_stop()
                if (
                    stop
                    or course.steps % config.save_steps == 0
                    or now - saved >= 60 * config.save_minutes
                ):
                    checkpoints.save(learner, course)
                    saved = clock()
                if stop:
                    raise TrainingInterrupted(course.steps)
    model.eval()
    last_epoch = course.losses[-epoch_steps:]
    return Trained(
        training_loss=sum(last_epoch) / len(last_epoch),
        steps=course.steps,
        tokens=course.tokens,
        seconds=course.seconds,
    )


def _example_losses(
    model: Any, group: Sequence[EncodedExample], config: TrainingConfig, device: str
) -> Iterator[torch.Tensor]:
    """The loss of a step's examples, in as many parts as memory asks for."""
    whole = sum(example.weight * example.answer_tokens for example in group)
    for start in range(0, len(group), config.batch_size):
        part = group[start : start + config.batch_size]
        weights = torch.tensor([example.weight for example in part], device=device)
        yield supervised(answer_likelihoods(model, part, device), weights, whole)


def _backward(scaler: torch.amp.GradScaler, losses: Iterator[torch.Tensor]) -> float | None:
    """Add up the gradients of some losses; their sum, None where there are none. One part's
    activations are in memory at a time.
    """
    total = None
    for loss in losses:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        total = float(loss.detach()) + (total or 0.0)
    return total


def step_batches(
    examples: Sequence[EncodedExample], config: TrainingConfig, epoch: int
) -> list[list[EncodedExample]]:
    """The examples of each step of an epoch: sorted by length so that little is padded, then the
    steps shuffled.

    A step's examples do not depend on how `batch_size` and `accumulation` divide it.
    """
    size = config.batch_size * config.accumulation
    by_length = sorted(examples, key=lambda example: len(example.ids))
    order = torch.randperm(
        math.ceil(len(by_length) / size),
        generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch),
    )
    return [by_length[place * size : (place + 1) * size] for place in order.tolist()]


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The rate of a step, counted from 0: a linear warm-up to the configured rate, then `cycles`
    times half a cosine down towards zero (Loshchilov & Hutter 2017, arXiv:1608.03983, with cycles
    of one length).
    """
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (config.cycles * progress % 1)))
