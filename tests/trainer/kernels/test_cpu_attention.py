"""CPU attention: blocks, gradient and limits."""

import torch

from services.trainer.kernels.cpu_attention import (
    MAX_KEYS,
    Block,
    attend,
    can_attend,
    split_into_blocks,
)
from services.trainer.kernels.packing import PrefixGroup

GROUPS = [PrefixGroup(3, (0, 2, 2, 5)), PrefixGroup(2, (1,)), PrefixGroup(0, (4, 4))]


def test_blocks_are_prefixes_or_suffixes_of_equal_length() -> None:
    assert split_into_blocks(GROUPS) == [
        Block(0, 1, 3, 0, 0),
        Block(3, 2, 2, 0, 3),
        Block(7, 1, 5, 0, 3),
        Block(12, 1, 2, 12, 0),
        Block(14, 1, 1, 12, 2),
        Block(15, 2, 4, 15, 0),
    ]


def test_gradient_matches_finite_differences() -> None:
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, 23, 3, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)
    )
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend(q, k, v, split_into_blocks(GROUPS), 0.7), (query, key, value)
    )


def test_16_bit_inputs_are_computed_in_fp32() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 23, 8).bfloat16() for heads in (4, 2, 2))
    expected = attend(query.float(), key.float(), value.float(), split_into_blocks(GROUPS), None)
    output = attend(query, key, value, split_into_blocks(GROUPS), None)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected.bfloat16())


def test_long_sequences_and_dropout_are_not_supported() -> None:
    query = torch.zeros(1, 1, 1, 8)
    longest = split_into_blocks([PrefixGroup(MAX_KEYS - 1, (1,))])
    assert can_attend(query, longest, 0.0)
    assert not can_attend(query, longest, 0.1)
    assert not can_attend(query, split_into_blocks([PrefixGroup(MAX_KEYS, (1,))]), 0.0)
    assert not can_attend(query.to("meta"), longest, 0.0)
