"""Attention in small products: its blocks, its gradient, and what it is not for."""

import torch

from services.trainer.kernels.cpu_attention import (
    MAX_KEYS,
    Block,
    attend,
    can_attend,
    split_into_blocks,
)
from services.trainer.kernels.packing import PrefixGroup

FAMILIES = [PrefixGroup(3, (0, 2, 2, 5)), PrefixGroup(2, (1,)), PrefixGroup(0, (4, 4))]


def test_a_block_is_a_prefix_or_the_suffixes_of_one_length() -> None:
    assert split_into_blocks(FAMILIES) == [
        Block(0, 1, 3, 0, 0),
        Block(3, 2, 2, 0, 3),
        Block(7, 1, 5, 0, 3),
        Block(12, 1, 2, 12, 0),
        Block(14, 1, 1, 12, 2),
        Block(15, 2, 4, 15, 0),
    ]


def test_the_gradient_by_hand_is_the_gradient() -> None:
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, 23, 3, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)
    )
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend(q, k, v, split_into_blocks(FAMILIES), 0.7), (query, key, value)
    )


def test_sixteen_bits_are_computed_in_thirty_two() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 23, 8).bfloat16() for heads in (4, 2, 2))
    exact = attend(query.float(), key.float(), value.float(), split_into_blocks(FAMILIES), None)
    found = attend(query, key, value, split_into_blocks(FAMILIES), None)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


def test_long_sequences_and_dropout_go_another_way() -> None:
    query = torch.zeros(1, 1, 1, 8)
    longest = split_into_blocks([PrefixGroup(MAX_KEYS - 1, (1,))])
    assert can_attend(query, longest, 0.0)
    assert not can_attend(query, longest, 0.1)
    assert not can_attend(query, split_into_blocks([PrefixGroup(MAX_KEYS, (1,))]), 0.0)
    assert not can_attend(query.to("meta"), longest, 0.0)
