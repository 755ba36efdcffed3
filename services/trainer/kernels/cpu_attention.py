"""Attention of a packed row on a CPU, as batched products of small matrices with their gradient by
hand.

    O = softmax(s Q K' + mask) V        Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1
    P = softmax(...)   dV = P' dO   dP = dO V'   dS = P (dP - rowsum(P dP))   dQ = s dS K   dK = s dS' Q

Examples of a batch are some dozens of tokens long. There the kernel that PyTorch has for a CPU,
which is made for long sequences, takes up to twice as long, and heads that share keys need copies
of them. Nothing but queries, keys and values is kept for the backward pass: P is computed again,
which costs less here than the memory it takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from services.trainer.kernels.packing import PrefixGroup

MAX_KEYS = 128
"""Keys that a token sees, at most: beyond them the kernel for long sequences, which leaves out what
a token does not see, is faster.
"""


@dataclass(frozen=True)
class Block:
    """`count` sequences of `length` tokens each, one after the other from `start` on in the row;
    all of them go on from the `before` tokens that stand from `prefix` on.
    """

    start: int
    count: int
    length: int
    prefix_start: int
    prefix_length: int

    @property
    def token_slice(self) -> slice:
        return slice(self.start, self.start + self.count * self.length)

    @property
    def prefix_slice(self) -> slice:
        return slice(self.prefix_start, self.prefix_start + self.prefix_length)


def split_into_blocks(families: Sequence[PrefixGroup]) -> list[Block]:
    """The blocks of a row, in its order: each prefix, and its suffixes by length."""
    blocks: list[Block] = []
    start = 0
    for family in families:
        prefix = start
        if family.prefix:
            blocks.append(Block(start, 1, family.prefix, prefix, 0))
            start += family.prefix
        for length, alike in groupby(family.suffixes):
            count = len(list(alike))
            if length:
                blocks.append(Block(start, count, length, prefix, family.prefix))
            start += count * length
    return blocks


def can_attend(query: torch.Tensor, blocks: Sequence[Block], dropout: float) -> bool:
    """Whether a row is one for this module."""
    return (
        query.device.type == "cpu"
        and not dropout
        and all(block.prefix_length + block.length <= MAX_KEYS for block in blocks)
    )


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Sequence[Block],
    scaling: float | None,
) -> torch.Tensor:
    """[1, heads, tokens, width] each, keys and values with fewer heads, to [1, tokens, heads,
    width]; in fp32 at least within.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found: torch.Tensor = _Attention.apply(query, key, value, blocks, scale)
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        blocks: Sequence[Block],
        scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.blocks, ctx.scale = blocks, scale
        _, heads, tokens, width = query.shape
        found = query.new_empty(1, tokens, heads, width)
        for block in blocks:
            part = _BlockTensors(query, key, value, block, scale)
            part.scatter(part.attention_weights() @ part.values, found[0].transpose(0, 1))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        of_query, of_key, of_value = (
            torch.empty_like(query),
            _zero_gradient(key),
            _zero_gradient(value),
        )
        for block in ctx.blocks:
            part = _BlockTensors(query, key, value, block, ctx.scale)
            of_answers = part.to_query_layout(gradient.transpose(1, 2))
            weights = part.attention_weights()
            part.accumulate(weights.transpose(1, 2) @ of_answers, of_value)
            of_scores = (of_answers @ part.values.transpose(1, 2)).mul_(weights)
            of_scores.addcmul_(weights, of_scores.sum(-1, keepdim=True), value=-1).mul_(ctx.scale)
            part.accumulate(of_scores.transpose(1, 2) @ part.queries, of_key)
            part.scatter(of_scores @ part.keys, of_query[0])
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None


class _BlockTensors:
    """One block's queries [count x key heads, queries of a key head x length, width], and keys and
    values [count x key heads, before + length, width]: heads that share keys are rows of one
    matrix.
    """

    def __init__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        block: Block,
        scale: float,
    ) -> None:
        self._block, self._scale = block, scale
        self._heads = key.shape[1]
        self._queries_per_key_head = query.shape[1] // key.shape[1]
        self.queries = self.to_query_layout(query)
        self.keys, self.values = self._gather_keys(key), self._gather_keys(value)

    def to_query_layout(self, state: torch.Tensor) -> torch.Tensor:
        """Of [1, heads, tokens, width], in the form of queries."""
        return (
            _to_compute_dtype(self._split_heads(state[0, :, self._block.token_slice]))
            .flatten(2, 3)
            .flatten(0, 1)
        )

    def attention_weights(self) -> torch.Tensor:
        """P: the softmax of the scores, in which a token sees what stands before its sequence, and
        of that what is not after itself.
        """
        length, before = self._block.length, self._block.prefix_length
        hidden = torch.full(
            (length, before + length), float("-inf"), dtype=self.queries.dtype
        ).triu_(before + 1)
        scores = torch.baddbmm(
            hidden.repeat(self._queries_per_key_head, 1),
            self.queries,
            self.keys.transpose(1, 2),
            alpha=self._scale,
        )
        return torch.softmax(scores, -1)

    def scatter(self, found: torch.Tensor, into: torch.Tensor) -> None:
        """Put what is of the form of queries into its place in [heads, tokens, width]."""
        block = self._block
        shaped = found.view(
            block.count, self._heads, self._queries_per_key_head, block.length, found.shape[-1]
        )
        self._split_heads(into[:, block.token_slice]).copy_(shaped)

    def accumulate(self, gradient: torch.Tensor, total: torch.Tensor) -> None:
        """Add a gradient of keys or values to that of the row, [1, key heads, tokens, width]."""
        block = self._block
        shaped = gradient.view(
            block.count, self._heads, block.prefix_length + block.length, gradient.shape[-1]
        )
        total[0, :, block.prefix_slice] += shaped[:, :, : block.prefix_length].sum(0)
        own = total[0, :, block.token_slice].view(self._heads, block.count, block.length, -1)
        own += shaped[:, :, block.prefix_length :].transpose(0, 1)

    def _gather_keys(self, state: torch.Tensor) -> torch.Tensor:
        block = self._block
        own = (
            state[0, :, block.token_slice]
            .view(self._heads, block.count, block.length, -1)
            .transpose(0, 1)
        )
        earlier = state[0, :, block.prefix_slice].expand(block.count, -1, -1, -1)
        return _to_compute_dtype(torch.cat([earlier, own], 2)).flatten(0, 1)

    def _split_heads(self, state: torch.Tensor) -> torch.Tensor:
        """[heads, count x length, width] as [count, key heads, queries of a key head, length,
        width]: another view of the same.
        """
        block = self._block
        return state.view(
            self._heads, self._queries_per_key_head, block.count, block.length, state.shape[-1]
        ).permute(2, 0, 1, 3, 4)


def _zero_gradient(state: torch.Tensor) -> torch.Tensor:
    return torch.zeros(state.shape, dtype=_compute_dtype(state))


def _to_compute_dtype(state: torch.Tensor) -> torch.Tensor:
    return state.to(_compute_dtype(state), memory_format=torch.contiguous_format)


def _compute_dtype(state: torch.Tensor) -> torch.dtype:
    return torch.promote_types(state.dtype, torch.float32)
