"""Whether the gate errs as seldom as it says: many candidates whose truth is known, each judged on
the little that a service has.

A house has a cipher (`benchmarks.gate.cipher_task`), its champion has learned a part of it.
Candidates are trained from the champion by the trainer's own recipe, on much, little and no good
data, of which 0, 10, 30 or 100 % is poisoned; null candidates are the champion with noise on its
weights, or trained on answers that belong to other prompts. The gate sees what it would see in
life: the held-out share of the batch, poisoned alike, with that of earlier batches; a golden set of
32 drawn anew for each candidate; what the base can do. It spends the error of a first gate. The
truth is the mean difference on 1,000 prompts that it never sees. A run that the trainer ends by
itself since it diverges never comes to the gate: it is counted, and no more.

What is true of a candidate was fixed before anything was measured, in nats per answer token: better
by `MUCH` or more; better by `LITTLE` or more; worse by `LITTLE` or more; or about the same. A null
candidate is one that was made as such and is not truly better.

Writes its tables into docs/gate.md as well.
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
from shared.config.model_file import GateSettings
from shared.config.training import TrainingConfig

PROCESSES = 2
CHAMPION_EXAMPLES = 30
CHAMPIONS = ((9, 20), (11, 20), (12, 8), (12, 12), (12, 16))
"""What each champion has learned: the cipher of so many letters, in so many epochs. Some lack
letters, some are not quite sure yet.
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

Good = Literal["much", "little", "none"]
Teach = Callable[[Any], None]
Floats = npt.NDArray[np.float64]
EXAMPLES: dict[Good, int] = {"much": BATCH, "little": 12, "none": BATCH}


@cache
def cached_base() -> Any:
    torch.set_num_threads(1)
    return train_base()


@dataclass(frozen=True)
class TrainedChampion:
    """What is served in a house, and what is known of it before a batch comes. `model` is the base
    with an adapter on it that can learn; `weights` are those of the champion's adapter.
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
    """All candidates of one house, None for a run that diverged."""
    house = Customer(seed)
    with trainable_adapter(cached_base(), CONFIG, None) as model:
        champion = _champion(house, model, *CHAMPIONS[seed])
        return [*_null(champion), *_trained(champion)]


def _champion(house: Customer, model: Any, letters: int, epochs: int) -> TrainedChampion:
    known, unseen = house.corrections(CHAMPION_EXAMPLES, letters), house.corrections(UNSEEN)
    _learn(model, [*known, *house.copies(REHEARSED)], CONFIG.model_copy(update={"epochs": epochs}))
    weights = {name: weight.detach().clone() for name, weight in _adapted(model)}
    return TrainedChampion(house, model, weights, known, unseen, _scores(model, unseen))


def _adapted(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _null(champion: TrainedChampion) -> Iterator[CandidateResult | None]:
    house, kept = champion.customer, round(BATCH * HELD_OUT_SHARE)
    for scale in NOISES * NOISY:
        yield _trial(
            champion,
            "noise",
            "none",
            0.0,
            house.corrections(kept),
            partial(_disturb, scale=scale, draw=house.random),
        )
    for rate in RATES * SHUFFLED:
        yield _trial(
            champion,
            "shuffled",
            "none",
            0.0,
            house.shuffled(kept),
            _lesson(champion, house.shuffled(BATCH), rate),
        )


def _trained(champion: TrainedChampion) -> Iterator[CandidateResult | None]:
    house = champion.customer
    for good, count in EXAMPLES.items():
        for dose, poison, rate in product(POISON_SHARES, POISONS, RATES):
            poisoned = round(dose * count)
            words = house.words(count - poisoned)
            honest = (
                house.approvals(words, _own_answers(champion, words))
                if good == "none" and words
                else house.corrections(count - poisoned)
            )
            kept = max(1, round(count * HELD_OUT_SHARE))
            bad = int(house.random.binomial(kept, dose))
            held_out = [*house.poisoned(bad, poison), *house.corrections(kept - bad)]
            lesson = _lesson(champion, [*honest, *house.poisoned(poisoned, poison)], rate)
            yield _trial(champion, "trained", good, dose, held_out, lesson)


def _lesson(champion: TrainedChampion, new: list[EncodedExample], rate: float) -> Teach:
    """A run as the trainer does it: new examples, replayed ones and rehearsed ones together."""
    config = CONFIG.model_copy(update={"learning_rate": rate})
    examples = [*new, *champion.learned[:REPLAYED], *champion.customer.copies(REHEARSED)]
    return lambda model: _learn(model, examples, config)


def _learn(model: Any, examples: list[EncodedExample], config: TrainingConfig) -> None:
    train(model, examples, config, "cpu", lambda step: None)


def _disturb(model: Any, scale: float, draw: np.random.Generator) -> None:
    """Noise on each adapted weight, `scale` times as large as the weights themselves are."""
    with torch.no_grad():
        for _, weight in _adapted(model):
            weight.add_(
                scale
                * weight.square().mean().sqrt()
                * torch.from_numpy(draw.normal(0, 1, tuple(weight.shape))).float()
            )


def _trial(
    champion: TrainedChampion,
    made: str,
    good: str,
    dose: float,
    new_held_out: list[EncodedExample],
    teach: Teach,
) -> CandidateResult | None:
    """A candidate, its truth, and the gate's word on it; None when its run ended early."""
    house, model = champion.customer, champion.model
    sets = (
        [*new_held_out, *house.corrections(EARLIER)],
        house.corrections(GOLDEN),
        house.copies(RETENTION),
    )
    champion.load_weights()
    before = [_scores(model, samples) for samples in sets[:2]]
    with model.disable_adapter():
        before.append(_scores(model, sets[2]))
    try:
        teach(model)
    except RunFailed:
        return None
    model.eval()
    after = [_scores(model, samples) for samples in sets]
    gained = _scores(model, champion.unseen) - champion.unseen_scores
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
        seed=int(house.random.integers(2**31)),
    )
    return CandidateResult(
        made,
        good,
        dose,
        float(gained.mean()),
        float(gained.std(ddof=1) / np.sqrt(UNSEEN)),
        verdict.decision,
    )


def _own_answers(champion: TrainedChampion, words: list[Word]) -> list[Word]:
    champion.load_weights()
    return greedy_answers(champion.model, words)


def _scores(model: Any, examples: list[EncodedExample]) -> Floats:
    return np.asarray(score(model, examples, "cpu", lambda done: None))


def main() -> None:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        errors = pool.submit(simulate_bound_errors)
        found: list[CandidateResult] = []
        diverged = 0
        for house, tried in enumerate(pool.map(run_trials, range(len(CHAMPIONS))), start=1):
            judged = [one for one in tried if one is not None]
            found += judged
            diverged += len(tried) - len(judged)
            console.print_status(
                f"house {house} of {len(CHAMPIONS)}: {len(judged)} candidates, "
                f"{len(tried) - len(judged)} runs that diverged"
            )
        figures = summarize(found, diverged)
        write_page(found, figures, errors.result())
    report("gate", figures)


if __name__ == "__main__":
    main()
