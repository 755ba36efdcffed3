"""Packing of examples into one row of tokens, without padding and with each shared prefix computed
once. Pure functions.

    [prefix of group 1][suffix][suffix]...[prefix of group 2][suffix]...

A prefix group holds examples with a common prefix. Examples that share no prefix form the last
group, with an empty prefix. Suffixes are sorted by length, so that those of equal length are
computed together. Each token attends to the preceding tokens of its own example: the group's
prefix, then the preceding tokens of its suffix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.trainer.data.tokenization import EncodedExample

ARCHITECTURES = frozenset(
    {"gemma", "granite", "helium", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Values of `model_type` with plain attention that receives the keyword arguments of the forward
pass, and with logits that are the head's output. A test compares each with its output for one
example at a time.
"""


def supports_packing(
    model_type: str, sliding_window: int | None, layer_types: Sequence[str] | None
) -> bool:
    """Return True if a model with this configuration can compute examples in one row: each token
    must attend to every token before it.
    """
    return (
        model_type in ARCHITECTURES
        and sliding_window is None
        and set(layer_types or ()) <= {"full_attention"}
    )


@dataclass(frozen=True)
class PrefixGroup:
    """Lengths of consecutive pieces of a row: a prefix, which may be empty, and the suffixes that
    continue it.
    """

    prefix: int
    suffixes: tuple[int, ...]


@dataclass(frozen=True)
class PackedRow:
    """Token ids of a row and the positions that predict answer tokens.

    `positions` are position ids within each example. `logit_positions` are the row positions whose
    outputs predict answer tokens, and `targets` are those tokens; both are example by example, in
    the order in which the examples were given.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    prefix_groups: tuple[PrefixGroup, ...]
    logit_positions: tuple[int, ...]
    targets: tuple[int, ...]


def pack(examples: Sequence[EncodedExample]) -> PackedRow:
    """Pack examples into a row. The last token of an example predicts nothing and is left out."""
    inputs = [example.ids[:-1] for example in examples]
    order = sorted(range(len(examples)), key=lambda index: inputs[index])
    ids: list[int] = []
    positions: list[int] = []
    groups: list[PrefixGroup] = []
    logit_positions: list[list[int]] = [[] for _ in examples]
    for prefix, neighbours in _group_by_prefix([inputs[index] for index in order]):
        members = sorted(
            (order[place] for place in neighbours), key=lambda index: len(inputs[index])
        )
        prefix_start = len(ids)
        ids += inputs[members[0]][:prefix]
        positions += range(prefix)
        for index in members:
            suffix_start = len(ids)
            ids += inputs[index][prefix:]
            positions += range(prefix, len(inputs[index]))
            answer = range(examples[index].answer_start - 1, len(inputs[index]))
            logit_positions[index] = [
                prefix_start + position if position < prefix else suffix_start + position - prefix
                for position in answer
            ]
        groups.append(PrefixGroup(prefix, tuple(len(inputs[index]) - prefix for index in members)))
    return PackedRow(
        ids=tuple(ids),
        positions=tuple(positions),
        prefix_groups=tuple(groups),
        logit_positions=tuple(
            position for answer_positions in logit_positions for position in answer_positions
        ),
        targets=tuple(
            token for example in examples for token in example.ids[example.answer_start :]
        ),
    )


def _group_by_prefix(inputs: Sequence[Sequence[int]]) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the prefix length and the members of each group among sorted inputs.

    The grouping minimises the length of the row among all groupings of neighbours. In sorted order,
    the common prefix of a run of neighbours is that of its first and last member. `saved[end]` is
    the maximum number of tokens that the first `end` inputs can save.
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
    if ungrouped := [run[0] for run in reversed(runs) if len(run) == 1]:
        yield 0, ungrouped


def _common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common prefix of two inputs."""
    shorter = min(len(first), len(second))
    return next(
        (position for position in range(shorter) if first[position] != second[position]), shorter
    )
