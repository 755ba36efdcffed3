"""Balance: no origin and no document outweighs the others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from services.dataset.building.candidate import Candidate, Origin

LEAST_OF_ORIGIN = 200
"""Number of examples up to which an origin is not reduced for the sake of others."""

T = TypeVar("T")


def balanced(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """Return at most `most` candidates, in their order.

    The largest origin has at most as many as all others together, or `LEAST_OF_ORIGIN`. If there
    are still too many, origins take turns, and within an origin its documents.
    """
    by_origin: defaultdict[Origin, list[int]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        by_origin[candidate.origin].append(place)
    turns = {
        origin: list(in_turns(_by_document(candidates, places)))
        for origin, places in by_origin.items()
    }
    if len(turns) > 1:
        largest = max(turns, key=lambda origin: len(turns[origin]))
        others = len(candidates) - len(turns[largest])
        turns[largest] = turns[largest][: max(others, LEAST_OF_ORIGIN)]
    chosen = list(in_turns(turns.values()))[:most]
    return [candidates[place] for place in sorted(chosen)]


def spread(groups: Iterable[Sequence[T]], most: int) -> list[list[T]]:
    """Take at most `most` items of groups in turns; return those of each group, in order."""
    lists = [list(group) for group in groups]
    places = [[(number, at) for at in range(len(items))] for number, items in enumerate(lists)]
    taken = [0] * len(lists)
    for number, _ in list(in_turns(places))[:most]:
        taken[number] += 1
    return [items[:count] for items, count in zip(lists, taken, strict=True)]


def _by_document(candidates: Sequence[Candidate], places: Iterable[int]) -> list[list[int]]:
    documents: defaultdict[str | None, list[int]] = defaultdict(list)
    for place in places:
        documents[candidates[place].document].append(place)
    return list(documents.values())


def in_turns(groups: Iterable[Sequence[T]]) -> Iterator[T]:
    """Yield the first item of each group, then the second of each, and so on."""
    place = 0
    while groups := [group for group in groups if len(group) > place]:
        yield from (group[place] for group in groups)
        place += 1
