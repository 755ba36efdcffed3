"""Candidates of known quality: trained from a champion by the trainer's own recipe, or disturbed,
scored on the sets that a gate sees and on prompts that it never sees.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.gate.cipher_task import POISONS, Customer, Poison, Word, greedy_answers, train_base
from benchmarks.gate.tables import CandidateResult
from services.trainer.data.tokenization import EncodedExample
from services.trainer.errors import RunFailed
from services.trainer.gate.budget import GateHistory
from services.trainer.gate.decision import decide
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.training.base_model import trainable_adapter
from services.trainer.training.recipe import train
from services.trainer.training.scoring import score
from shared.config.gate import GateSettings
from shared.config.training import TrainingConfig

CHAMPION_EXAMPLES = 30
CHAMPIONS = ((9, 20), (11, 20), (12, 8), (12, 12), (12, 16))
"""Letters and epochs of each champion's training. Some champions lack letters, some are not certain
yet.
"""
GOLDEN, EARLIER, RETENTION, UNSEEN = 32, 12, 12, 1000
NEW_HELD_OUT = 40
"""Held-out examples from the source of a candidate's batch. The gate of the tables sees as many as
the batch has; a simulated life draws others at each gate.
"""
HELD_OUT_SHARE = 0.1
REHEARSED, REPLAYED = 20, 20
BATCH = 50
POISON_SHARES = (0.0, 0.1, 0.3, 1.0)
RATES = (5e-4, 3e-3)
NOISES = (0.02, 0.1, 0.4)
NOISY, SHUFFLED = 11, 6
DISTURBED = 90
"""Null candidates of a customer for the simulated lives only."""
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
class Origin:
    """Recipe of a candidate. Its gate sees `held_out_count` held-out examples of its batch."""

    method: Literal["noise", "shuffled", "trained"]
    good_data: DataAmount
    poison_share: float
    held_out_count: int
    poison: Poison = "shout"

    def held_out(self, customer: Customer, count: int) -> list[EncodedExample]:
        """Draw held-out examples from the source of the batch."""
        if self.method == "shuffled":
            return customer.shuffled(count)
        poisoned = int(customer.random.binomial(count, self.poison_share))
        return [
            *customer.poisoned(poisoned, self.poison),
            *customer.corrections(count - poisoned),
        ]


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with its differences to the champion, per example: on clean prompts that no set
    of the table holds, on held-out examples from the source of its batch, and to the base on the
    regression set.
    """

    result: CandidateResult
    unseen: Floats
    new_held_out: Floats
    regression: Floats


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


@dataclass(frozen=True)
class Trials:
    """The candidates of one customer, the number of runs that diverged, and the differences of
    further disturbed champions on the unseen prompts, a column each.
    """

    candidates: list[ScoredCandidate]
    diverged: int
    disturbed: Floats


def run_trials(seed: int) -> Trials:
    """Return all candidates of one customer."""
    customer = Customer(seed)
    with trainable_adapter(cached_base(), CONFIG, None) as model:
        champion = train_champion(seed, customer, model)
        results = [*_null_candidates(champion), *_trained_candidates(champion)]
        candidates = [result for result in results if result is not None]
        return Trials(candidates, len(results) - len(candidates), _disturbed(champion))


def _disturbed(champion: TrainedChampion) -> Floats:
    """Return one column of differences for each of `DISTURBED` disturbed champions."""
    model, columns = champion.model, []
    for number in range(DISTURBED):
        champion.load_weights()
        _disturb(model, NOISES[number % len(NOISES)], champion.customer.random)
        columns.append(score_examples(model, champion.unseen) - champion.unseen_scores)
    return np.stack(columns, axis=1)


def train_champion(number: int, customer: Customer, model: Any) -> TrainedChampion:
    letters, epochs = CHAMPIONS[number]
    learned, unseen = customer.corrections(CHAMPION_EXAMPLES, letters), customer.corrections(UNSEEN)
    _learn(
        model, [*learned, *customer.copies(REHEARSED)], CONFIG.model_copy(update={"epochs": epochs})
    )
    weights = {name: weight.detach().clone() for name, weight in _adapted(model)}
    return TrainedChampion(customer, model, weights, learned, unseen, score_examples(model, unseen))


def _adapted(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _null_candidates(champion: TrainedChampion) -> Iterator[ScoredCandidate | None]:
    customer, held_out_count = champion.customer, round(BATCH * HELD_OUT_SHARE)
    for scale in NOISES * NOISY:
        disturb = partial(_disturb, scale=scale, draw=customer.random)
        yield _evaluate(champion, Origin("noise", "none", 0.0, held_out_count), disturb)
    for rate in RATES * SHUFFLED:
        origin = Origin("shuffled", "none", 0.0, held_out_count)
        yield _evaluate(champion, origin, _training(champion, customer.shuffled(BATCH), rate))


def _trained_candidates(champion: TrainedChampion) -> Iterator[ScoredCandidate | None]:
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
            train_candidate = _training(
                champion, [*clean, *customer.poisoned(poisoned_count, poison)], rate
            )
            held_out_count = max(1, round(count * HELD_OUT_SHARE))
            origin = Origin("trained", good_data, poison_share, held_out_count, poison)
            yield _evaluate(champion, origin, train_candidate)


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
    champion: TrainedChampion, origin: Origin, train_candidate: Train
) -> ScoredCandidate | None:
    """Train a candidate, measure its true gain, and decide on it; None if its run ended early."""
    customer, model = champion.customer, champion.model
    sets = (
        [*origin.held_out(customer, origin.held_out_count), *customer.corrections(EARLIER)],
        customer.corrections(GOLDEN),
        customer.copies(RETENTION),
        origin.held_out(customer, NEW_HELD_OUT),
    )
    champion.load_weights()
    before = [score_examples(model, samples) for samples in sets]
    with model.disable_adapter():
        before[2] = score_examples(model, sets[2])
    try:
        train_candidate(model)
    except RunFailed:
        return None
    model.eval()
    after = [score_examples(model, samples) for samples in sets]
    gains = score_examples(model, champion.unseen) - champion.unseen_scores
    held_out, golden, retention = (
        PairedScores(first.tolist(), second.tolist())
        for first, second in zip(before[:3], after[:3], strict=True)
    )
    alpha = GateHistory().level(GATE.confidence, evaluation=1)
    verdict = decide(
        GateEvidence(held_out, golden, retention, (), ()),
        GATE,
        "champion",
        alpha,
        seed=int(customer.random.integers(2**31)),
    )
    result = CandidateResult(
        origin.method,
        origin.good_data,
        origin.poison_share,
        float(gains.mean()),
        float(gains.std(ddof=1) / np.sqrt(UNSEEN)),
        verdict.decision,
    )
    return ScoredCandidate(result, gains, after[3] - before[3], after[2] - before[2])


def _champion_answers(champion: TrainedChampion, words: list[Word]) -> list[Word]:
    champion.load_weights()
    return greedy_answers(champion.model, words)


def score_examples(model: Any, examples: list[EncodedExample]) -> Floats:
    return np.asarray(score(model, examples, "cpu", lambda done: None))
