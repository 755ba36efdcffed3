"""Examples in one row of tokens, nothing padded and no beginning that examples have in common
computed twice. A pure function.

    [prefix of family 1][suffix][suffix]...[prefix of family 2][suffix]...

A family is examples that begin alike; those that begin like no other are the last, with an empty
prefix. Its suffixes stand in order of length, so that those of one length can be computed together.
Each token attends to what stands before it in its own example: to the family's prefix, then to the
tokens before it in its own suffix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.trainer.data.tokenization import EncodedExample

ARCHITECTURES = frozenset(
    {"gemma", "granite", "helium", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Those (`model_type`) whose attention is the plain one and is asked for with what the forward pass
is given, and whose logits are the head's; a test holds each to what it computes for one example at
a time.
"""


def supports_packing(
    model_type: str, sliding_window: int | None, layer_types: Sequence[str] | None
) -> bool:
    """Whether examples are computed in one row by a model with this configuration: each token has
    to attend to every token before it.
    """
    return (
        model_type in ARCHITECTURES
        and sliding_window is None
        and set(layer_types or ()) <= {"full_attention"}
    )


@dataclass(frozen=True)
class PrefixGroup:
    """Lengths of consecutive pieces of a row: a prefix, which may be empty, and the suffixes that
    go on from it.
    """

    prefix: int
    suffixes: tuple[int, ...]


@dataclass(frozen=True)
class PackedRow:
    """`positions` are places within an example. `before` are the places in the row that predict an
    answer's tokens, `targets` those tokens, both example by example in the order in which the
    examples were given.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    prefix_groups: tuple[PrefixGroup, ...]
    logit_positions: tuple[int, ...]
    targets: tuple[int, ...]


def pack(examples: Sequence[EncodedExample]) -> PackedRow:
    """The row of some examples. The last token of an example predicts nothing, and is no part of
    the row.
    """
    inputs = [example.ids[:-1] for example in examples]
    order = sorted(range(len(examples)), key=lambda place: inputs[place])
    ids: list[int] = []
    positions: list[int] = []
    families: list[PrefixGroup] = []
    before: list[list[int]] = [[] for _ in examples]
    for prefix, alike in _group_by_prefix([inputs[place] for place in order]):
        members = sorted((order[at] for at in alike), key=lambda place: len(inputs[place]))
        prefix_start = len(ids)
        ids += inputs[members[0]][:prefix]
        positions += range(prefix)
        for place in members:
            suffix_start = len(ids)
            ids += inputs[place][prefix:]
            positions += range(prefix, len(inputs[place]))
            answer = range(examples[place].answer_start - 1, len(inputs[place]))
            before[place] = [
                prefix_start + at if at < prefix else suffix_start + at - prefix for at in answer
            ]
        families.append(
            PrefixGroup(prefix, tuple(len(inputs[place]) - prefix for place in members))
        )
    return PackedRow(
        ids=tuple(ids),
        positions=tuple(positions),
        prefix_groups=tuple(families),
        logit_positions=tuple(at for places in before for at in places),
        targets=tuple(
            token for example in examples for token in example.ids[example.answer_start :]
        ),
    )


def _group_by_prefix(inputs: Sequence[Sequence[int]]) -> Iterator[tuple[int, Sequence[int]]]:
    """The prefix and the members of each family among sorted inputs, so that the row is as short as
    it can be with families of neighbours.

    In sorted order what a run of neighbours has in common is what its first and its last have in
    common. `saved[end]` is the most that the first `end` inputs can save.
    """
    saved, starts = [0], [0]
    for end in range(1, len(inputs) + 1):
        best, start = saved[end - 1], end - 1
        common = len(inputs[end - 1])
        for first in range(end - 2, -1, -1):
            common = min(common, _common_prefix_length(inputs[first], inputs[first + 1]))
            if not common:
                break
            gain = saved[first] + common * (end - first - 1)
            if gain > best:
                best, start = gain, first
        saved.append(best)
        starts.append(start)
    runs: list[range] = []
    end = len(inputs)
    while end:
        runs.append(range(starts[end], end))
        end = starts[end]
    yield from (
        (_common_prefix_length(inputs[run[0]], inputs[run[-1]]), run)
        for run in reversed(runs)
        if len(run) > 1
    )
    if alone := [run[0] for run in reversed(runs) if len(run) == 1]:
        yield 0, alone


def _common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two inputs begin alike with."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)
