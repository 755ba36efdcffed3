"""Which examples of a pool a model learns most from: corrected, uncertain, novel.

Corrections come before everything else. Among them, and then among the others, one is taken after the other, each time the one whose
`surprise` plus novelty is greatest:

- surprise of a correction is how much of the answer had to change; of an approved answer, how far what was said of it is from
  unanimous praise, (1 - reward) / 2: what a model does well already has little to teach;
- novelty is 1 minus the greatest similarity to what was taken before (farthest-first traversal, Gonzalez 1985, "Clustering to minimize
  the maximum intercluster distance"), as it was estimated for near-duplicates.

Both are in [0, 1]. Ties go to the older.
"""

from collections.abc import Sequence

import numpy as np

from services.dataset.similarity import minima
from shared.entries import Entry


def most_informative(candidates: Sequence[Entry], count: int) -> list[Entry]:
    """`count` of the candidates, in the order in which they were given. Work grows with count times candidates."""
    corrections = [at for at, entry in enumerate(candidates) if entry.reason == "correction"]
    others = [at for at, entry in enumerate(candidates) if entry.reason != "correction"]
    signatures = np.stack([minima(entry.text or "") for entry in candidates])
    surprises = np.array([surprise(entry) for entry in candidates])
    nearest = np.zeros(len(candidates))
    taken: list[int] = []
    for group in (corrections, others):
        left = np.array(group, dtype=np.intp)
        while len(left) and len(taken) < count:
            best = int(np.argmax(surprises[left] + 1.0 - nearest[left]))
            taken.append(int(left[best]))
            nearest = np.maximum(nearest, (signatures == signatures[left[best]]).mean(axis=1))
            left = np.delete(left, best)
    return [candidates[at] for at in sorted(taken)]


def surprise(entry: Entry) -> float:
    """What an example may teach for what was said of it, in [0, 1]."""
    if entry.reason == "correction":
        return max((-part.value for part in entry.parts if part.name in ("correction", "action")), default=0.0)
    return (1.0 - entry.example.reward) / 2 if entry.example else 0.0
