"""Error rates of the gate: hundreds of candidates of known quality, each judged on as few examples
as a service has.

A customer has a cipher (`benchmarks.gate.cipher_task`), and its champion has learned a part of it.
Candidates are trained from the champion by the trainer's own recipe, on much, little or no good
data, of which 0, 10, 30 or 100 % is poisoned. Null candidates are the champion with noise on its
weights, or trained on answers that belong to other prompts. The gate gets the inputs of production:
the held-out share of the batch, poisoned as well, with that of earlier batches; a golden set of 32
drawn again for each candidate; the abilities of the base. It spends the error of a first gate. The
truth is the mean difference on 1,000 prompts that it never sees. Runs that the trainer ends early
because they diverge never reach the gate: they are only counted.

The true quality of a candidate was defined before anything was measured, in nats per answer token:
better by `LARGE_GAIN` or more; better by `SMALL_GAIN` or more; worse by `SMALL_GAIN` or more; or
about the same. A null candidate is one that was created as such and is not truly better.

Also writes its tables into docs/gate.md.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.gate.cipher_task import POISONS, Customer, Word, greedy_answers, train_base
from benchmarks.gate.minimum_examples import simulate_bound_errors
from benchmarks.gate.tables import CandidateResult, summarize, write_page
from benchmarks.results import report
from ratchet import console
from services.trainer.data.tokenization import EncodedExample
from services.trainer.errors import RunFailed
from services.trainer.gate.decision import GateEvidence, PairedScores, alpha_for_gate, decide
from services.trainer.training.base_model import trainable_adapter
from services.trainer.training.recipe import train
from services.trainer.training.scoring import score
from shared.config.gate import GateSettings
from shared.config.training import TrainingConfig

PROCESSES = 2
CHAMPION_EXAMPLES = 30
CHAMPIONS = ((9, 20), (11, 20), (12, 8), (12, 12), (12, 16))
"""Letters and epochs of each champion's training. Some champions lack letters, some are not certain
yet.
"""
GOLDEN, EARLIER, RETENTION, UNSEEN = 32, 12, 12, 1000
HELD_OUT_SHARE = 0.1
REHEARSED, REPLAYED = 20, 20
BATCH = 50
POISON_SHARES = (0.0, 0.1, 0.3, 1.0)
RATES = (5e-4, 3e-3)
NOISES = (0.02, 0.1, 0.4)
NOISY, SHUFFLED = 11, 6
CONFIG = TrainingConfig(
    rank=8,
    alpha=32,
    learning_rate=4e-3,
    epochs=3,
    batch_size=16,
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)
GATE = GateSettings()

DataAmount = Literal["much", "little", "none"]
Train = Callable[[Any], None]
Floats = npt.NDArray[np.float64]
EXAMPLES: dict[DataAmount, int] = {"much": BATCH, "little": 12, "none": BATCH}


@cache
def cached_base() -> Any:
    torch.set_num_threads(1)
    return train_base()


@dataclass(frozen=True)
class TrainedChampion:
    """A customer's champion, and its state before a batch. `model` is the base with a trainable
    adapter; `weights` are those of the champion's adapter.
    """

    customer: Customer
    model: Any
    weights: dict[str, torch.Tensor]
    learned: list[EncodedExample]
    unseen: list[EncodedExample]
    unseen_scores: Floats

    def load_weights(self) -> None:
        with torch.no_grad():
            for name, weight in _adapted(self.model):
                weight.copy_(self.weights[name])


def run_trials(seed: int) -> list[CandidateResult | None]:
    """Return the results of all candidates of one customer, None for a run that diverged."""
    customer = Customer(seed)
    with trainable_adapter(cached_base(), CONFIG, None) as model:
        champion = _champion(customer, model, *CHAMPIONS[seed])
        return [*_null_candidates(champion), *_trained_candidates(champion)]


def _champion(customer: Customer, model: Any, letters: int, epochs: int) -> TrainedChampion:
    learned, unseen = customer.corrections(CHAMPION_EXAMPLES, letters), customer.corrections(UNSEEN)
    _learn(
        model, [*learned, *customer.copies(REHEARSED)], CONFIG.model_copy(update={"epochs": epochs})
    )
    weights = {name: weight.detach().clone() for name, weight in _adapted(model)}
    return TrainedChampion(customer, model, weights, learned, unseen, _scores(model, unseen))


def _adapted(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _null_candidates(champion: TrainedChampion) -> Iterator[CandidateResult | None]:
    customer, held_out_count = champion.customer, round(BATCH * HELD_OUT_SHARE)
    for scale in NOISES * NOISY:
        yield _evaluate(
            champion,
            "noise",
            "none",
            0.0,
            customer.corrections(held_out_count),
            partial(_disturb, scale=scale, draw=customer.random),
        )
    for rate in RATES * SHUFFLED:
        yield _evaluate(
            champion,
            "shuffled",
            "none",
            0.0,
            customer.shuffled(held_out_count),
            _training(champion, customer.shuffled(BATCH), rate),
        )


def _trained_candidates(champion: TrainedChampion) -> Iterator[CandidateResult | None]:
    customer = champion.customer
    for good_data, count in EXAMPLES.items():
        for poison_share, poison, rate in product(POISON_SHARES, POISONS, RATES):
            poisoned_count = round(poison_share * count)
            words = customer.words(count - poisoned_count)
            clean = (
                customer.approvals(words, _champion_answers(champion, words))
                if good_data == "none" and words
                else customer.corrections(count - poisoned_count)
            )
            held_out_count = max(1, round(count * HELD_OUT_SHARE))
            bad_count = int(customer.random.binomial(held_out_count, poison_share))
            held_out = [
                *customer.poisoned(bad_count, poison),
                *customer.corrections(held_out_count - bad_count),
            ]
            train_candidate = _training(
                champion, [*clean, *customer.poisoned(poisoned_count, poison)], rate
            )
            yield _evaluate(champion, "trained", good_data, poison_share, held_out, train_candidate)


def _training(champion: TrainedChampion, new: list[EncodedExample], rate: float) -> Train:
    """Return a run like the trainer's: new, replayed and rehearsed examples together."""
    config = CONFIG.model_copy(update={"learning_rate": rate})
    examples = [*new, *champion.learned[:REPLAYED], *champion.customer.copies(REHEARSED)]
    return lambda model: _learn(model, examples, config)


def _learn(model: Any, examples: list[EncodedExample], config: TrainingConfig) -> None:
    train(model, examples, config, "cpu", lambda step: None)


def _disturb(model: Any, scale: float, draw: np.random.Generator) -> None:
    """Add noise to each adapter weight, with `scale` times the weights' root mean square."""
    with torch.no_grad():
        for _, weight in _adapted(model):
            weight.add_(
                scale
                * weight.square().mean().sqrt()
                * torch.from_numpy(draw.normal(0, 1, tuple(weight.shape))).float()
            )


def _evaluate(
    champion: TrainedChampion,
    method: str,
    good_data: str,
    poison_share: float,
    new_held_out: list[EncodedExample],
    train_candidate: Train,
) -> CandidateResult | None:
    """Train a candidate, measure its true gain, and decide on it; None if its run ended early."""
    customer, model = champion.customer, champion.model
    sets = (
        [*new_held_out, *customer.corrections(EARLIER)],
        customer.corrections(GOLDEN),
        customer.copies(RETENTION),
    )
    champion.load_weights()
    before = [_scores(model, samples) for samples in sets[:2]]
    with model.disable_adapter():
        before.append(_scores(model, sets[2]))
    try:
        train_candidate(model)
    except RunFailed:
        return None
    model.eval()
    after = [_scores(model, samples) for samples in sets]
    gains = _scores(model, champion.unseen) - champion.unseen_scores
    held_out, golden, retention = (
        PairedScores(first.tolist(), second.tolist())
        for first, second in zip(before, after, strict=True)
    )
    alpha = alpha_for_gate(GATE.confidence, 1)
    verdict = decide(
        GateEvidence(held_out, golden, retention, (), ()),
        GATE,
        "champion",
        alpha,
        seed=int(customer.random.integers(2**31)),
    )
    return CandidateResult(
        method,
        good_data,
        poison_share,
        float(gains.mean()),
        float(gains.std(ddof=1) / np.sqrt(UNSEEN)),
        verdict.decision,
    )


def _champion_answers(champion: TrainedChampion, words: list[Word]) -> list[Word]:
    champion.load_weights()
    return greedy_answers(champion.model, words)


def _scores(model: Any, examples: list[EncodedExample]) -> Floats:
    return np.asarray(score(model, examples, "cpu", lambda done: None))


def main() -> None:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        errors = pool.submit(simulate_bound_errors)
        candidates: list[CandidateResult] = []
        diverged = 0
        for customer, results in enumerate(pool.map(run_trials, range(len(CHAMPIONS))), start=1):
            decided = [result for result in results if result is not None]
            candidates += decided
            diverged += len(results) - len(decided)
            console.print_status(
                f"customer {customer} of {len(CHAMPIONS)}: {len(decided)} candidates, "
                f"{len(results) - len(decided)} runs that diverged"
            )
        figures = summarize(candidates, diverged)
        write_page(candidates, figures, errors.result())
    report("gate", figures)


if __name__ == "__main__":
    main()
