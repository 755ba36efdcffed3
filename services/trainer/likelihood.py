"""How likely a model finds answers: the one computation that training and evaluation share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from services.trainer.tokens import Encoded


@dataclass(frozen=True)
class Collated:
    """Examples as rectangles [examples, tokens], padded on the right. `answers` marks the positions that predict an answer's token."""

    ids: torch.Tensor
    attention: torch.Tensor
    answers: torch.Tensor
    targets: torch.Tensor


def collate(examples: Sequence[Encoded], device: str) -> Collated:
    length = max(len(example.ids) for example in examples)
    shape = (len(examples), length)
    ids, attention, answers = (
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.bool),
    )
    for row, example in enumerate(examples):
        end = len(example.ids)
        ids[row, :end] = torch.tensor(example.ids)
        attention[row, :end] = 1
        answers[row, example.answer_start - 1 : end - 1] = True
    targets = ids.roll(-1, dims=1)[answers]
    return Collated(ids.to(device), attention.to(device), answers.to(device), targets.to(device))


def log_likelihoods(model: Any, batch: Collated) -> torch.Tensor:
    """Log-likelihood of each answer token, in the order of the examples; shape [answer tokens], fp32.

    The head is applied to the positions before answer tokens only: with a vocabulary of 50,000 the rest would cost as much as a layer.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.get_decoder()(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).last_hidden_state
    logits = causal.get_output_embeddings()(hidden[batch.answers]).float()
    return -functional.cross_entropy(logits, batch.targets, reduction="none")
