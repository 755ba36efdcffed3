"""Log-likelihoods of answers: the computation that training and evaluation share."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from services.trainer.data.tokenization import EncodedExample
from services.trainer.kernels import packed_attention
from services.trainer.kernels.lm_head import token_log_likelihoods
from services.trainer.kernels.packing import PackedRow, pack
from services.trainer.machine.memory import lm_head_chunk_tokens


@dataclass(frozen=True)
class CollatedBatch:
    """Examples that are computed together, on a device."""

    examples: tuple[EncodedExample, ...]
    row: PackedRow
    device: str


def collate(examples: Sequence[EncodedExample], device: str) -> CollatedBatch:
    return CollatedBatch(tuple(examples), pack(examples), device)


def log_likelihoods(model: Any, batch: CollatedBatch) -> torch.Tensor:
    """Compute the log-likelihood of each answer token, in the order of the examples; shape [answer
    tokens], at least fp32.

    The head is applied only to positions that predict answer tokens: with a vocabulary of 50,000
    the other positions would cost as much as a layer.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    targets = torch.tensor(batch.row.targets, device=batch.device)
    with _autocast(causal, batch.device):
        if packed_attention.can_pack(causal):
            return token_log_likelihoods(
                _packed_hidden_states(causal, batch), causal.get_output_embeddings().weight, targets
            )
        logits = _padded_logits(causal, batch)
    return -functional.cross_entropy(
        logits.float() if logits.element_size() < 4 else logits, targets, reduction="none"
    )


def most_likely_tokens(
    model: Any, batch: CollatedBatch, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the `count` most likely tokens at the position of each answer token, in the order of
    the examples. Returns their log-likelihoods and ids, each [answer tokens, count].
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    with _autocast(causal, batch.device):
        if packed_attention.can_pack(causal):
            hidden = _packed_hidden_states(causal, batch)
            head = causal.get_output_embeddings()
            chunks = torch.split(hidden, lm_head_chunk_tokens(len(head.weight)))
            parts = [head(chunk) for chunk in chunks]
        else:
            parts = [_padded_logits(causal, batch)]
    best = [part.float().log_softmax(-1).topk(count) for part in parts]
    return torch.cat([part.values for part in best]), torch.cat([part.indices for part in best])


def _autocast(causal: Any, device: str) -> Any:
    """Return the autocast context for a model with 4-bit projections.

    The layers around 4-bit projections are fp32, whose products are slow on a GPU. There they are
    computed in the precision of the projections.
    """
    quantisation = getattr(causal.config, "quantization_config", None)
    if device == "cpu" or quantisation is None:
        return nullcontext()
    return torch.autocast(device, quantisation.bnb_4bit_compute_dtype)


def _packed_hidden_states(causal: Any, batch: CollatedBatch) -> torch.Tensor:
    """Compute the inputs of the head that predict answer tokens, [answer tokens, width], with all
    examples in one row.
    """
    packed_attention.enable_packed_attention(causal)
    row = batch.row
    hidden: torch.Tensor = causal.get_decoder()(
        input_ids=torch.tensor([row.ids], device=batch.device),
        position_ids=torch.tensor([row.positions], device=batch.device),
        attention_mask=_NO_MASK,
        use_cache=False,
        layout=packed_attention.RowLayout(row, batch.device),
    ).last_hidden_state[0]
    # Granite models divide their logits by a constant.
    return hidden[torch.tensor(row.logit_positions, device=batch.device)] / getattr(
        causal.config, "logits_scaling", 1
    )


_NO_MASK = torch.empty(1, 1, 0, 0)
"""Placeholder attention mask. A 4-dimensional mask is passed through unchanged, so the model does
not build an unused tokens x tokens mask of its own.
"""


def _padded_logits(causal: Any, batch: CollatedBatch) -> torch.Tensor:
    """Compute logits for a model that cannot pack: rectangles [examples, tokens], padded on the
    right.
    """
    inputs = [example.ids[:-1] for example in batch.examples]
    first_logit = min(example.answer_start for example in batch.examples) - 1
    shape = (len(inputs), max(map(len, inputs)))
    ids, attention = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    predicts_answer = torch.zeros(shape, dtype=torch.bool)
    for row, (input_ids, example) in enumerate(zip(inputs, batch.examples, strict=True)):
        ids[row, : len(input_ids)] = torch.tensor(input_ids)
        attention[row, : len(input_ids)] = 1
        predicts_answer[row, example.answer_start - 1 : len(input_ids)] = True
    logits: torch.Tensor = causal(
        input_ids=ids.to(batch.device),
        attention_mask=attention.to(batch.device),
        use_cache=False,
        logits_to_keep=shape[1] - first_logit,
    ).logits
    return logits[predicts_answer[:, first_logit:].to(batch.device)]
