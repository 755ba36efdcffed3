"""How an adapter is trained; reads from top to bottom.

Supervised fine-tuning of LoRA weights (Hu et al. 2021, arXiv:2106.09685) on a frozen base: cross-entropy on answer tokens only, AdamW, a
linear warm-up and then half a cosine, clipped gradients. Everything random comes from the seed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import torch

from services.trainer.base_model import needs_scale
from services.trainer.failures import LOWER_THE_RATE, RunFailed
from services.trainer.likelihood import collate, log_likelihoods
from services.trainer.protocol import Stepped, Trained
from services.trainer.tokens import Encoded
from shared.training_config import TrainingConfig


def train(model: Any, examples: Sequence[Encoded], config: TrainingConfig, device: str, report: Callable[[Stepped], None]) -> Trained:
    """Train the parameters of `model` that ask for it. Raises RunFailed when a loss or a gradient is not a finite number."""
    torch.manual_seed(config.seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    scaler = torch.amp.GradScaler(device, enabled=needs_scale(model))
    total_steps = config.epochs * math.ceil(len(examples) / (config.batch_size * config.accumulation))
    started = perf_counter()
    step = tokens = 0
    last_epoch: list[float] = []
    model.train()
    for epoch in range(config.epochs):
        last_epoch = []
        for group in groups(examples, config, epoch):
            rate = learning_rate(step, total_steps, config)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            answer_tokens = sum(example.answer_tokens for example in group)
            loss = 0.0
            for start in range(0, len(group), config.batch_size):
                batch = collate(group[start : start + config.batch_size], device)
                part = -log_likelihoods(model, batch).sum() / answer_tokens
                scaler.scale(part).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
                loss += float(part.detach())
            scaler.unscale_(optimizer)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm))
            if not math.isfinite(loss) or (not math.isfinite(norm) and not scaler.is_enabled()):
                raise RunFailed(f"step {step + 1}: loss {loss}, gradient norm {norm}", LOWER_THE_RATE)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            step += 1
            tokens += sum(len(example.ids) for example in group)
            last_epoch.append(loss)
            seconds = perf_counter() - started
            report(
                Stepped(
                    step=step,
                    total_steps=total_steps,
                    loss=loss,
                    learning_rate=rate,
                    gradient_norm=norm if math.isfinite(norm) else None,
                    tokens_per_second=tokens / seconds,
                    seconds_left=seconds / step * (total_steps - step),
                )
            )
    model.eval()
    return Trained(training_loss=sum(last_epoch) / len(last_epoch), steps=step, tokens=tokens, seconds=perf_counter() - started)


def groups(examples: Sequence[Encoded], config: TrainingConfig, epoch: int) -> Iterator[list[Encoded]]:
    """The examples of each step of an epoch: sorted by length so that little is padded, then the steps shuffled.

    A step's examples do not depend on how `batch_size` and `accumulation` divide it.
    """
    size = config.batch_size * config.accumulation
    by_length = sorted(examples, key=lambda example: len(example.ids))
    order = torch.randperm(math.ceil(len(by_length) / size), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
    for place in order.tolist():
        yield by_length[place * size : (place + 1) * size]


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The rate of a step, counted from 0: a linear warm-up to the configured rate, then half a cosine down towards zero."""
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))
