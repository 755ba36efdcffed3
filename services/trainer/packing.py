"""Examples in one row of tokens, nothing padded and no beginning that examples have in common computed twice. A pure function.

    [prefix of family 1][suffix][suffix]...[prefix of family 2][suffix]...

A family is examples that begin alike, and its suffixes stand in order of length, so that those of one length can be computed together.
Each token attends to what stands before it in its own example: to the family's prefix, then to the tokens before it in its own suffix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.trainer.tokens import Encoded


@dataclass(frozen=True)
class Family:
    """Lengths of consecutive pieces of a row: a prefix, which may be empty, and the suffixes that go on from it."""

    prefix: int
    suffixes: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """`positions` are places within an example. `before` are the places in the row that predict an answer's tokens, `targets` those
    tokens, both example by example in the order in which the examples were given."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    families: tuple[Family, ...]
    before: tuple[int, ...]
    targets: tuple[int, ...]


def pack(examples: Sequence[Encoded]) -> Row:
    """The row of some examples. The last token of an example predicts nothing, and is no part of the row."""
    inputs = [example.ids[:-1] for example in examples]
    order = sorted(range(len(examples)), key=lambda place: inputs[place])
    ids: list[int] = []
    positions: list[int] = []
    families: list[Family] = []
    before: list[list[int]] = [[] for _ in examples]
    for first, end in _families([inputs[place] for place in order]):
        prefix = _in_common(inputs[order[first]], inputs[order[end - 1]]) if end - first > 1 else 0
        members = sorted(order[first:end], key=lambda place: len(inputs[place]))
        prefix_start = len(ids)
        ids += inputs[members[0]][:prefix]
        positions += range(prefix)
        for place in members:
            suffix_start = len(ids)
            ids += inputs[place][prefix:]
            positions += range(prefix, len(inputs[place]))
            answer = range(examples[place].answer_start - 1, len(inputs[place]))
            before[place] = [prefix_start + at if at < prefix else suffix_start + at - prefix for at in answer]
        families.append(Family(prefix, tuple(len(inputs[place]) - prefix for place in members)))
    return Row(
        ids=tuple(ids),
        positions=tuple(positions),
        families=tuple(families),
        before=tuple(at for places in before for at in places),
        targets=tuple(token for example in examples for token in example.ids[example.answer_start :]),
    )


def _families(inputs: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Where families begin and end among sorted inputs, so that the row is as short as it can be with families of neighbours.

    In sorted order what a run of neighbours has in common is what its first and its last have in common. `saved[end]` is the most
    that the first `end` inputs can save.
    """
    saved, starts = [0], [0]
    for end in range(1, len(inputs) + 1):
        best, start = saved[end - 1], end - 1
        common = len(inputs[end - 1])
        for first in range(end - 2, -1, -1):
            common = min(common, _in_common(inputs[first], inputs[first + 1]))
            if not common:
                break
            gain = saved[first] + common * (end - first - 1)
            if gain > best:
                best, start = gain, first
        saved.append(best)
        starts.append(start)
    found: list[tuple[int, int]] = []
    end = len(inputs)
    while end:
        found.append((starts[end], end))
        end = starts[end]
    return found[::-1]


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two inputs begin alike with."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)
