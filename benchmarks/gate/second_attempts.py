"""Comparison of settings for a second attempt, on the cipher task of the gate's benchmark.

Each champion learns its customer's cipher from clean corrections at high rates, with little or no
rehearsal. Of the candidates that only forget too much, each is trained once more at every setting
and judged as a second attempt.

    python -m benchmarks.gate.second_attempts
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import mean
from typing import Any

from benchmarks.gate.candidates import (
    CHAMPIONS,
    CONFIG,
    GATE,
    GOLDEN,
    REPLAYED,
    TrainedChampion,
    cached_base,
    score_examples,
    train_champion,
)
from benchmarks.gate.cipher_task import Customer
from services.trainer.data.tokenization import EncodedExample
from services.trainer.errors import RunFailed
from services.trainer.gate.budget import GateHistory
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.gate.judgement import Judgement, Look, judge
from services.trainer.training.base_model import trainable_adapter
from services.trainer.training.recipe import train

BATCH, HELD_OUT, REGRESSION = 50, 20, 24
RATES, REHEARSED, EPOCHS = (2.5e-3, 5e-3), (0, 4), (3, 8, 16)


@dataclass(frozen=True)
class Setting:
    """A setting of a second attempt: factors of the learning rate and of the rehearsal, and the
    first adapted layer.
    """

    rate: float = 1.0
    rehearsal: int = 1
    first_layer: int = 0


SETTINGS: Mapping[str, Setting] = {
    "half the rate": Setting(rate=1 / 2),
    "a quarter of the rate": Setting(rate=1 / 4),
    "an eighth of the rate": Setting(rate=1 / 8),
    "half the layers": Setting(first_layer=1),
    "twice the rehearsal": Setting(rehearsal=2),
    "four times the rehearsal": Setting(rehearsal=4),
}


@dataclass(frozen=True)
class Batch:
    """A batch and its evaluation sets, with the baseline's scores."""

    champion: TrainedChampion
    rate: float
    epochs: int
    new: Sequence[EncodedExample]
    rehearsed: Sequence[EncodedExample]
    sets: Sequence[Sequence[EncodedExample]]
    baseline: list[list[float]] = field(default_factory=list)

    def attempt(self, setting: Setting, *, is_second: bool) -> Judgement | None:
        """Train and judge a candidate; None if its run ended early."""
        champion, model = self.champion, self.champion.model
        champion.load_weights()
        if not self.baseline:
            self.baseline.extend(_scores(model, samples) for samples in self.sets)
            with model.disable_adapter():
                self.baseline[2] = _scores(model, self.sets[2])
        examples = [
            *self.new,
            *champion.learned[:REPLAYED],
            *(list(self.rehearsed) * setting.rehearsal),
        ]
        config = CONFIG.model_copy(
            update={"learning_rate": setting.rate * self.rate, "epochs": self.epochs}
        )
        frozen = [
            weight
            for name, weight in model.named_parameters()
            if weight.requires_grad and setting.first_layer and ".layers.0." in name
        ]
        for weight in frozen:
            weight.requires_grad_(False)
        try:
            train(model, examples, config, "cpu", lambda step: None)
        except RunFailed:
            return None
        finally:
            for weight in frozen:
                weight.requires_grad_(True)
        model.eval()
        held_out, golden, regression = (
            PairedScores(before, _scores(model, samples))
            for before, samples in zip(self.baseline, self.sets, strict=True)
        )
        return judge(
            GateEvidence(held_out, golden, regression, (), ()),
            GATE,
            "champion",
            Look("r", 1, "second attempt" if is_second else None),
            gates=GateHistory(),
            history=(),
            reward=None,
            golden=None,
        )


def batches(seed: int, model: Any) -> Iterator[Batch]:
    customer = Customer(seed)
    champion = train_champion(seed, customer, model)
    for rate, rehearsed, epochs in product(RATES, REHEARSED, EPOCHS):
        sets = (
            customer.corrections(HELD_OUT),
            customer.corrections(GOLDEN),
            customer.copies(REGRESSION),
        )
        yield Batch(
            champion, rate, epochs, customer.corrections(BATCH), customer.copies(rehearsed), sets
        )


def _scores(model: Any, examples: Sequence[EncodedExample]) -> list[float]:
    return [float(value) for value in score_examples(model, list(examples))]


def _gain(found: Judgement) -> float:
    return next(row.difference for row in found.verdict.comparisons if row.name == "golden")


def main() -> None:
    runs = 0
    promoted: dict[str, list[bool]] = {name: [] for name in SETTINGS}
    kept: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for seed in range(len(CHAMPIONS)):
        with trainable_adapter(cached_base(), CONFIG, None) as model:
            for batch in batches(seed, model):
                runs += 1
                first = batch.attempt(Setting(), is_second=False)
                if first is None or not first.only_forgot:
                    continue
                for name, setting in SETTINGS.items():
                    second = batch.attempt(setting, is_second=True)
                    promoted[name].append(
                        second is not None and second.verdict.decision == "promote"
                    )
                    kept[name].append(_gain(second) / _gain(first) if second else 0.0)
    retried = max(map(len, promoted.values()))
    print(f"{runs} runs, of which {retried} only forgot too much\n")
    print(
        "| second attempt at | promoted | gain on golden kept: mean, least |\n| --- | --- | --- |"
    )
    for name, outcomes in promoted.items():
        share = f"{mean(kept[name]):.0%}, {min(kept[name]):.0%}" if kept[name] else ""
        print(f"| {name} | {sum(outcomes)} of {retried} | {share} |")


if __name__ == "__main__":
    main()
