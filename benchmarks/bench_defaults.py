"""Training with the default settings against the demo's tuned recipe, on the demo's task with the
real small model.

Both learn the same corrections, round by round, each from its own previous adapter, with replay and
rehearsal as the trainer adds them. The two take turns within each round, so that other work on the
machine affects both. Then both answer the same unseen tickets.

- `train_seconds`: of all rounds, of the default settings; the baseline is that of the tuned recipe.
- `cpu_seconds`: the same in processor time, which other work on the machine affects less.
- `exact_answers`: share of exact answers on unseen tickets after the last round, likewise.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from statistics import mean
from time import perf_counter, process_time

import torch

from benchmarks.results import Result, report
from ratchet import console
from ratchet.demo.tickets import Ticket, make_ticket
from services.trainer.data.tokenization import encode, encode_prompt
from services.trainer.data.training_set import Sample
from services.trainer.gate.base_answers import MAX_ANSWER_TOKENS
from services.trainer.machine.device import best_precision, training_memory
from services.trainer.machine.effective_settings import Device, effective_settings
from services.trainer.training.base_model import (
    LoadedBase,
    load_base,
    save_adapter,
    trainable_adapter,
    with_adapter,
)
from services.trainer.training.base_shape import read_shape
from services.trainer.training.generation import generate_greedily
from services.trainer.training.recipe import train
from shared.config.model_file import LaneSettings
from shared.config.models import Models, load_models
from shared.config.training import TrainingConfig
from shared.events import Message

FOLDER = Path(".ratchet/bench/defaults")
BASES = Path(".ratchet/bases")
MODEL = "support"
BATCH, ANSWER_TOKENS, MAX_TOKENS = 50, 24, 1024


@dataclass
class Recipe:
    """A configuration, what it rehearses, and what it has learned so far."""

    name: str
    config: TrainingConfig
    rehearsed: Sequence[Sample]
    learned: list[Sample] = field(default_factory=list)
    adapter: Path | None = None
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def without_lanes(models: Models) -> Models:
    """Return the models as if no file had settings for its lanes."""
    files = {
        name: file.model_copy(update={"lanes": {"adaptive": LaneSettings()}})
        for name, file in models.files.items()
    }
    return Models(files, models.folder)


def recipe(name: str, models: Models, base: LoadedBase) -> Recipe:
    """Return the recipe that the trainer would use."""
    file = models.get(MODEL)
    device = Device(base.device, best_precision(base.device), training_memory(base.device, None))
    shape = read_shape(BASES / file.base.training)
    config = effective_settings(file.lanes["adaptive"].training, shape, device).config
    prompts = [prompt.messages for prompt in models.rehearsal(MODEL, "adaptive")]
    answers = answers_of(base, None, prompts, MAX_ANSWER_TOKENS)
    samples = zip(prompts, answers, strict=True)
    return Recipe(name, config, [Sample(messages=asked, answer=text) for asked, text in samples])


def answers_of(
    base: LoadedBase, adapter: Path | None, prompts: Sequence[tuple[Message, ...]], tokens: int
) -> list[str]:
    encoded = [encode_prompt(base.vocabulary, prompt, MAX_TOKENS) for prompt in prompts]
    with with_adapter(base.generation_model, adapter) as model:
        answers = generate_greedily(
            model, base.vocabulary.end_tokens, encoded, tokens, base.device, lambda done: None
        )
    return [answer.answer(base.vocabulary).text for answer in answers]


def train_round(recipe: Recipe, base: LoadedBase, new: Sequence[Sample], number: int) -> None:
    """Train on new examples, the newest replayed ones and the rehearsed ones."""
    replayed = recipe.learned[-recipe.config.replay :] if recipe.config.replay else []
    examples = [*new, *replayed, *recipe.rehearsed]
    folder = FOLDER / recipe.name / str(number)
    started, cpu_started = perf_counter(), process_time()
    with trainable_adapter(base.train_model, recipe.config, recipe.adapter) as model:
        train(
            model,
            [encode(base.vocabulary, sample, MAX_TOKENS) for sample in examples],
            recipe.config,
            base.device,
            lambda step: None,
        )
        save_adapter(model, "base", folder)
    recipe.seconds.append(perf_counter() - started)
    recipe.cpu_seconds.append(process_time() - cpu_started)
    recipe.learned += new
    recipe.adapter = folder


def exact_share(recipe: Recipe, base: LoadedBase, tickets: Sequence[Ticket]) -> float:
    answers = answers_of(
        base, recipe.adapter, [ticket.messages for ticket in tickets], ANSWER_TOKENS
    )
    return mean(answer == ticket.answer for answer, ticket in zip(answers, tickets, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tickets", type=int, default=100, help="unseen tickets that are answered")
    parser.add_argument("--threads", type=int, default=0, help="cores for training; 0 is all")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rmtree(FOLDER, ignore_errors=True)
    models = load_models(Path("models"))
    base = load_base(str(BASES / models.get(MODEL).base.training), "auto")
    tuned = recipe("tuned", models, base)
    default = recipe("default", without_lanes(models), base)
    for number in range(arguments.rounds):
        tickets = [make_ticket("defaults", number * BATCH + index) for index in range(BATCH)]
        new = [Sample(messages=ticket.messages, answer=ticket.answer) for ticket in tickets]
        pair = (tuned, default) if number % 2 == 0 else (default, tuned)
        for each in pair:
            train_round(each, base, new, number)
            console.print_status(
                f"round {number + 1}: {each.name} {each.seconds[-1]:.1f} s, "
                f"{each.cpu_seconds[-1]:.1f} s of processor time"
            )
    unseen = [make_ticket("defaults-unseen", number) for number in range(arguments.tickets)]
    exact = {each.name: exact_share(each, base, unseen) for each in (tuned, default)}
    report(
        "defaults",
        [
            Result("train_seconds", sum(default.seconds), "s", baseline=sum(tuned.seconds)),
            Result("cpu_seconds", sum(default.cpu_seconds), "s", baseline=sum(tuned.cpu_seconds)),
            Result("exact_answers", exact["default"], "share", baseline=exact["tuned"]),
        ],
    )


if __name__ == "__main__":
    main()
