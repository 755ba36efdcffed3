"""Selection of the most informative examples of a pool: corrected, uncertain, novel.

Corrections are selected first, since there the model was wrong. Among them, and then among the
approved answers, examples are selected one by one, each time the one most similar to the weighted
pool and least similar to those selected before:

    sum_j w_j s(i, j) / sum_j w_j  -  sum_{k selected} s(i, k) / (1 + number selected)

s is the similarity of prompt and answer, estimated by MinHash. It is a kernel, and this is herding
in it (Chen, Welling and Smola 2010, "Super-Samples from Kernel Herding"). The selection represents
its whole group as a larger random sample would, each kind in its share, and the next
example is novel compared with the earlier ones. w is the weight of an example: 1 for a correction;
for an approved answer its distance from unanimous praise, (1 - reward) / 2, at least `MIN_WEIGHT`.

The size of a correction is not used: a model trained on large changes alone learns one kind of
mistake and takes it for the rule. Ties go to the older example.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.dataset.ledger.minhash import Minima, minima_of
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.snapshots import Example

MIN_WEIGHT = 0.1
"""Weight of an answer that everybody praised: it is in demand, but the model already knows it."""

Numbers = npt.NDArray[np.float64]


def select_informative(candidates: Sequence[DatasetEntry], count: int) -> list[DatasetEntry]:
    """Select `count` of the candidates, in the order given. The cost is O(count * candidates)."""
    corrections = [at for at, entry in enumerate(candidates) if entry.reason == "correction"]
    approved = [at for at, entry in enumerate(candidates) if entry.reason != "correction"]
    minima = np.stack([_minima(entry.example) for entry in candidates])
    weights = np.array([weight(entry) for entry in candidates])
    similarity_to_selected = np.zeros(len(candidates))
    selected: list[int] = []
    for group in (corrections, approved):
        left = np.array(group, dtype=np.intp)
        demand = mean_similarity(minima[left], weights[left])
        while len(left) and len(selected) < count:
            best = int(np.argmax(demand - similarity_to_selected[left] / (1 + len(selected))))
            selected.append(int(left[best]))
            similarity_to_selected += (minima == minima[left[best]]).mean(axis=1)
            left, demand = np.delete(left, best), np.delete(demand, best)
    return [candidates[at] for at in sorted(selected)]


def _minima(example: Example | None) -> Minima:
    return minima_of(example.messages, example.answer) if example else minima_of((), "")


def weight(entry: DatasetEntry) -> float:
    """Weight of an example given its feedback, in (0, 1]."""
    if entry.reason == "correction":
        return 1.0
    return max((1.0 - entry.example.reward) / 2, MIN_WEIGHT) if entry.example else MIN_WEIGHT


def mean_similarity(minima: Minima, weights: Numbers) -> Numbers:
    """Weighted average similarity of each text to all, itself included.

    The similarity of a pair is its share of equal minima, so it suffices to count equal minima
    place by place: the cost is linear in the number of texts.
    """
    mean = np.zeros(len(minima))
    for place in minima.T:
        _, group = np.unique(place, return_inverse=True)
        mean += np.bincount(group, weights)[group]
    return mean / (minima.shape[1] * weights.sum()) if len(mean) else mean
