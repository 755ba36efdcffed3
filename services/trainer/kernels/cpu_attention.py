"""Attention over a packed row on a CPU, as batched products of small matrices with a hand-written
gradient.

    O = softmax(s Q K' + mask) V        Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1
    P = softmax(...)   dV = P' dO   dP = dO V'   dS = P (dP - rowsum(P dP))
    dQ = s dS K        dK = s dS' Q

Examples of a batch have a few dozen tokens. At that length PyTorch's CPU kernel, which is designed
for long sequences, takes up to twice as long, and key heads shared by query heads must be copied
for it. Only queries, keys and values are kept for the backward pass. P is recomputed, which is
cheaper here than storing it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from services.trainer.kernels.packing import PrefixGroup

MAX_KEYS = 128
"""Maximum number of keys that a token attends to. Beyond it the kernel for long sequences is
faster, because it skips masked keys.
"""


@dataclass(frozen=True)
class Block:
    """`count` sequences of `length` tokens each, consecutive in the row from `start` on. All of
    them continue the `prefix_length` tokens that begin at `prefix_start`.
    """

    start: int
    count: int
    length: int
    prefix_start: int
    prefix_length: int

    @property
    def token_slice(self) -> slice:
        """Slice of the row with the block's own tokens."""
        return slice(self.start, self.start + self.count * self.length)

    @property
    def prefix_slice(self) -> slice:
        """Slice of the row with the shared prefix."""
        return slice(self.prefix_start, self.prefix_start + self.prefix_length)


def split_into_blocks(groups: Sequence[PrefixGroup]) -> list[Block]:
    """Split a row into blocks, in row order: each prefix, then its suffixes grouped by length."""
    blocks: list[Block] = []
    start = 0
    for group in groups:
        prefix_start = start
        if group.prefix:
            blocks.append(Block(start, 1, group.prefix, prefix_start, 0))
            start += group.prefix
        for length, equal in groupby(group.suffixes):
            count = len(list(equal))
            if length:
                blocks.append(Block(start, count, length, prefix_start, group.prefix))
            start += count * length
    return blocks


def can_attend(query: torch.Tensor, blocks: Sequence[Block], dropout: float) -> bool:
    """Return True if this module can compute attention for the row."""
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
    """Compute attention from [1, heads, tokens, width] to [1, tokens, heads, width].

    Keys and values may have fewer heads than queries. Arithmetic is at least fp32.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output: torch.Tensor = _Attention.apply(query, key, value, blocks, scale)
    return output


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
        output = query.new_empty(1, tokens, heads, width)
        for block in blocks:
            tensors = _BlockTensors(query, key, value, block, scale)
            tensors.scatter(tensors.attention_weights() @ tensors.values, output[0].transpose(0, 1))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        query_gradient, key_gradient, value_gradient = (
            torch.empty_like(query),
            _zero_gradient(key),
            _zero_gradient(value),
        )
        for block in ctx.blocks:
            tensors = _BlockTensors(query, key, value, block, ctx.scale)
            output_gradient = tensors.to_query_layout(gradient.transpose(1, 2))
            weights = tensors.attention_weights()
            tensors.accumulate(weights.transpose(1, 2) @ output_gradient, value_gradient)
            score_gradient = (output_gradient @ tensors.values.transpose(1, 2)).mul_(weights)
            score_gradient.addcmul_(weights, score_gradient.sum(-1, keepdim=True), value=-1).mul_(
                ctx.scale
            )
            tensors.accumulate(score_gradient.transpose(1, 2) @ tensors.queries, key_gradient)
            tensors.scatter(score_gradient @ tensors.keys, query_gradient[0])
        return (
            query_gradient,
            key_gradient.to(key.dtype),
            value_gradient.to(value.dtype),
            None,
            None,
        )


class _BlockTensors:
    """The tensors of one block.

    Queries are [count x key heads, query heads per key head x length, width]; keys and values are
    [count x key heads, prefix_length + length, width]. Query heads that share a key head are rows
    of one matrix.
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
        """Convert [1, heads, tokens, width] to the layout of `queries`."""
        return (
            _to_compute_dtype(self._split_heads(state[0, :, self._block.token_slice]))
            .flatten(2, 3)
            .flatten(0, 1)
        )

    def attention_weights(self) -> torch.Tensor:
        """Compute P: the softmax of the scores under a causal mask. A token sees the prefix and its
        own sequence up to itself.
        """
        length, before = self._block.length, self._block.prefix_length
        mask = torch.full((length, before + length), float("-inf"), dtype=self.queries.dtype).triu_(
            before + 1
        )
        scores = torch.baddbmm(
            mask.repeat(self._queries_per_key_head, 1),
            self.queries,
            self.keys.transpose(1, 2),
            alpha=self._scale,
        )
        return torch.softmax(scores, -1)

    def scatter(self, values: torch.Tensor, into: torch.Tensor) -> None:
        """Write a tensor in query layout to the block's positions in [heads, tokens, width]."""
        block = self._block
        blocked = values.view(
            block.count, self._heads, self._queries_per_key_head, block.length, values.shape[-1]
        )
        self._split_heads(into[:, block.token_slice]).copy_(blocked)

    def accumulate(self, gradient: torch.Tensor, total: torch.Tensor) -> None:
        """Add a key or value gradient to the row's gradient, [1, key heads, tokens, width]."""
        block = self._block
        blocked = gradient.view(
            block.count, self._heads, block.prefix_length + block.length, gradient.shape[-1]
        )
        total[0, :, block.prefix_slice] += blocked[:, :, : block.prefix_length].sum(0)
        own = total[0, :, block.token_slice].view(self._heads, block.count, block.length, -1)
        own += blocked[:, :, block.prefix_length :].transpose(0, 1)

    def _gather_keys(self, state: torch.Tensor) -> torch.Tensor:
        block = self._block
        own = (
            state[0, :, block.token_slice]
            .view(self._heads, block.count, block.length, -1)
            .transpose(0, 1)
        )
        prefix = state[0, :, block.prefix_slice].expand(block.count, -1, -1, -1)
        return _to_compute_dtype(torch.cat([prefix, own], 2)).flatten(0, 1)

    def _split_heads(self, state: torch.Tensor) -> torch.Tensor:
        """View [heads, count x length, width] as [count, key heads, query heads per key head,
        length, width].
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
