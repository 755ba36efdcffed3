"""Comparison of a batch selected from a larger pool with a random one, on the demo's task with the
real small model.

For each seed, a parent is trained on two batches, one after the other, the first replayed with the
second. It answers a pool of fresh tickets, and simulated users rate the answers as in the demo.
Every rating passes through the scoring of the feedback service and the ledger of the dataset
service. Then the same recipe trains the parent on 50 examples of that pool and 50 replayed ones:
once selected by `services.dataset.ledger.selection`, once at random. Both are evaluated on the same
unseen tickets: mean log-likelihood per answer token of the right answers, and the share of exact
answers.

Two seeds run at a time, one core each. A seed takes some ten minutes on a CPU with bf16
instructions, twice as long elsewhere. Results of each seed are kept, and `--resume` continues an
interrupted run; use it with unchanged code only.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from statistics import mean

import torch
from pydantic import TypeAdapter
from pydantic_core import to_json

from benchmarks.results import Result, report
from ratchet import console
from ratchet.demo.simulated_users import honest_feedback
from ratchet.demo.tickets import Ticket, make_ticket
from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.selection import select_informative
from services.feedback.scoring import Policies
from services.feedback.scoring import score as scored
from services.trainer.data.tokenization import encode, encode_prompt
from services.trainer.data.training_set import Sample
from services.trainer.training.base_model import (
    LoadedBase,
    load_base,
    save_adapter,
    trainable_adapter,
    with_adapter,
)
from services.trainer.training.generation import generate_greedily
from services.trainer.training.recipe import train
from services.trainer.training.scoring import score
from shared.clock import SystemClock
from shared.config.models import Models, load_models
from shared.events import Position
from shared.identity import hash_fraction
from shared.messaging.bus import Record
from shared.messaging.codec import encode as encode_event
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED
from shared.storage.dataset_entries import DatasetEntry

FOLDER = Path(".ratchet/bench/selection")
SEEDS, PROCESSES = 6, 2
POOL, BATCH, REPLAYED, UNSEEN = 200, 50, 50, 80
ANSWER_TOKENS = 40
MODEL = "support"


@dataclass(frozen=True)
class AdapterScores:
    """Scores of an adapter on the unseen tickets."""

    likelihood: float
    exact: float


@dataclass(frozen=True)
class SeedResult:
    """Result of one seed."""

    chosen: AdapterScores
    chance: AdapterScores


SEED_RESULT = TypeAdapter(SeedResult)


class SelectionExperiment:
    """One seed: its parent, its pool and its unseen tickets."""

    def __init__(self, seed: int, base: LoadedBase, models: Models) -> None:
        self._seed = seed
        self._base = base
        self._models = models
        self._config = models.get(MODEL).lanes["adaptive"].training
        self._unseen = [make_ticket(f"selection-unseen-{seed}", number) for number in range(UNSEEN)]
        learned = [make_ticket(f"selection-first-{seed}", number) for number in range(2 * BATCH)]
        self._learned = [Sample(messages=seen.messages, answer=seen.answer) for seen in learned]
        first = self._train("first", self._learned[:BATCH], None)
        self._parent = self._train("parent", self._learned, first)
        self.pool = self._rate_pool(
            [make_ticket(f"selection-pool-{seed}", number) for number in range(2 * POOL)]
        )

    def train_and_score(self, name: str, chosen: Sequence[DatasetEntry]) -> AdapterScores:
        samples = [
            Sample(messages=entry.example.messages, answer=entry.example.answer)
            for entry in chosen
            if entry.example
        ]
        adapter = self._train(name, [*samples, *self._learned[-REPLAYED:]], self._parent)
        references = [
            encode(
                self._base.vocabulary, Sample(messages=unseen.messages, answer=unseen.answer), 1024
            )
            for unseen in self._unseen
        ]
        with with_adapter(self._base.eval_model, adapter) as model:
            likelihood = mean(score(model, references, self._base.device, lambda done: None))
        answers = self._answers(adapter, self._unseen)
        return AdapterScores(
            likelihood,
            mean(
                answer == unseen.answer
                for answer, unseen in zip(answers, self._unseen, strict=True)
            ),
        )

    def _rate_pool(self, tickets: Sequence[Ticket]) -> list[DatasetEntry]:
        """Return the first `POOL` training examples that result from users rating the parent's
        answers.
        """
        file = self._models.get(MODEL)
        ledger = Ledger(
            file.model_copy(
                update={"curation": file.curation.model_copy(update={"held_out_share": 0.0})}
            ),
            0,
        )
        now, policies = SystemClock().now(), Policies(self._models)
        entries: list[DatasetEntry] = []
        for first in range(0, len(tickets), BATCH):
            asked_tickets = tickets[first : first + BATCH]
            for number, (rated_ticket, answer) in enumerate(
                zip(asked_tickets, self._answers(self._parent, asked_tickets), strict=True),
                start=first,
            ):
                value, headers = encode_event(
                    honest_feedback(
                        rated_ticket, answer, "v1", f"selection-{self._seed}", number, now
                    ),
                    "/bench",
                )
                event = scored(
                    Record(FEEDBACK_RECEIVED, 0, number, None, value, tuple(headers)), policies
                ).event
                entry = ledger.decide(
                    event, Position(topic=FEEDBACK_SCORED, partition=0, offset=number), now
                ).entry
                if entry is not None and entry.decision == "training":
                    entries.append(entry)
            if len(entries) >= POOL:
                break
        return entries[:POOL]

    def _answers(self, adapter: Path, tickets: Sequence[Ticket]) -> list[str]:
        base = self._base
        prompts = [
            encode_prompt(base.vocabulary, asked_ticket.messages, 1024) for asked_ticket in tickets
        ]
        with with_adapter(base.generation_model, adapter) as model:
            answers = generate_greedily(
                model,
                base.vocabulary.end_tokens,
                prompts,
                ANSWER_TOKENS,
                base.device,
                lambda done: None,
            )
        return [answer.answer(base.vocabulary).text for answer in answers]

    def _train(self, name: str, samples: Sequence[Sample], parent: Path | None) -> Path:
        folder = FOLDER / str(self._seed) / name
        with trainable_adapter(self._base.train_model, self._config, parent) as model:
            train(
                model,
                [encode(self._base.vocabulary, sample, 1024) for sample in samples],
                self._config,
                self._base.device,
                lambda step: None,
            )
            save_adapter(model, "base", folder)
        return folder


def run_seed(seed: int) -> SeedResult:
    """Train on the selected and on the random examples, or return the stored result."""
    stored = FOLDER / f"{seed}.json"
    if stored.exists():
        return SEED_RESULT.validate_json(stored.read_bytes())
    torch.set_num_threads(1)
    models = load_models(Path("models"))
    experiment = SelectionExperiment(
        seed, load_base(f".ratchet/bases/{models.get(MODEL).base.training}", "auto"), models
    )
    random_entries = sorted(
        experiment.pool, key=lambda entry: hash_fraction("chance", seed, entry.feedback_id)
    )[:BATCH]
    chosen = experiment.train_and_score("chosen", select_informative(experiment.pool, BATCH))
    result = SeedResult(chosen, experiment.train_and_score("chance", random_entries))
    stored.write_bytes(to_json(result))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep results of an earlier run of the same code"
    )
    if not parser.parse_args().resume:
        rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for seed, result in enumerate(pool.map(run_seed, range(1, SEEDS + 1)), start=1):
            results.append(result)
            console.out.print(
                f"seed {seed} of {SEEDS}: selected {result.chosen}, random {result.chance}",
                highlight=False,
            )
    report(
        "selection",
        [
            Result(
                "chosen_wins",
                mean(result.chosen.likelihood > result.chance.likelihood for result in results),
                "share of seeds",
            ),
            Result(
                "likelihood_gain",
                mean(result.chosen.likelihood - result.chance.likelihood for result in results),
                "nats/token",
            ),
            Result(
                "exact_answers",
                mean(result.chosen.exact for result in results),
                "share",
                baseline=mean(result.chance.exact for result in results),
            ),
        ],
    )


if __name__ == "__main__":
    main()
