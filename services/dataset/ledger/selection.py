"""Which examples of a pool a model learns most from: corrected, uncertain, novel.

Corrections come before everything else: there the model was wrong. Among them, and then among the
others, one is taken after the other, each time the one that is most like what is asked for and
least like what was taken:

    sum_j w_j s(i, j) / sum_j w_j  -  sum_{k taken} s(i, k) / (1 + number taken)

s is the similarity of prompt and answer, estimated as for near-duplicates; it is a kernel, and this
is herding in it (Chen, Welling and Smola 2010, "Super-Samples from Kernel Herding"). What is chosen
stands for its whole group as a larger sample drawn by chance would, each kind in its share, and
what is taken next is novel beside what was taken before. w is what an example may teach: 1 where
the answer was corrected; where it was approved, how far what was said of it is from unanimous
praise, (1 - reward) / 2, and `PRAISED` at least.

How much of an answer a correction changed says nothing here: who learns from great changes alone
learns one kind of mistake and takes it for the rule. Ties go to the older.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.dataset.ledger.minhash import minhash_values
from shared.storage.dataset_entries import DatasetEntry

MIN_WEIGHT = 0.1
"""What an answer teaches that everybody praised: it is asked for, and the model knows it already.
"""

Numbers = npt.NDArray[np.float64]
Signatures = npt.NDArray[np.uint32]


def select_informative(candidates: Sequence[DatasetEntry], count: int) -> list[DatasetEntry]:
    """`count` of the candidates, in the order in which they were given. Work grows with count times
    candidates.
    """
    corrections = [at for at, entry in enumerate(candidates) if entry.reason == "correction"]
    others = [at for at, entry in enumerate(candidates) if entry.reason != "correction"]
    signatures = np.stack([minhash_values(entry.text or "") for entry in candidates])
    weights = np.array([weight(entry) for entry in candidates])
    likeness = np.zeros(len(candidates))
    taken: list[int] = []
    for group in (corrections, others):
        left = np.array(group, dtype=np.intp)
        asked_for = mean_similarity(signatures[left], weights[left])
        while len(left) and len(taken) < count:
            best = int(np.argmax(asked_for - likeness[left] / (1 + len(taken))))
            taken.append(int(left[best]))
            likeness += (signatures == signatures[left[best]]).mean(axis=1)
            left, asked_for = np.delete(left, best), np.delete(asked_for, best)
    return [candidates[at] for at in sorted(taken)]


def weight(entry: DatasetEntry) -> float:
    """What an example may teach for what was said of it, in (0, 1]."""
    if entry.reason == "correction":
        return 1.0
    return max((1.0 - entry.example.reward) / 2, MIN_WEIGHT) if entry.example else MIN_WEIGHT


def mean_similarity(signatures: Signatures, weights: Numbers) -> Numbers:
    """The similarity of each to all, itself included, on weighted average. A pair is alike in as
    many places as minima are equal, so that it is enough to count, place by place, who has the
    same: work grows with the number, not with its square.
    """
    mean = np.zeros(len(signatures))
    for place in signatures.T:
        _, group = np.unique(place, return_inverse=True)
        mean += np.bincount(group, weights)[group]
    return mean / (signatures.shape[1] * weights.sum()) if len(mean) else mean
