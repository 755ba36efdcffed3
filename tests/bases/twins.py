"""Tiny twins of bases: a folder in transformers format with random weights, and the requests of the
training process, executed on it in this process.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from services.trainer.data.training_set import Sample
from services.trainer.protocol import (
    REPLY,
    Generate,
    Generated,
    GreedyAnswer,
    Load,
    Reply,
    Request,
    Train,
    Trained,
)
from services.trainer.worker.request_handler import RequestHandler
from shared.config.training import TrainingConfig
from shared.events import Message

OVERFIT = TrainingConfig(
    rank=16,
    alpha=64,
    batch_size=2,
    epochs=50,
    learning_rate=5e-3,
    precision="fp32",
    targets=("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)


def save_twin(
    folder: Path, tokenizer: Any, end: int | Sequence[int] | None, config: Any = None
) -> Path:
    """Save a base with this tokenizer; its configuration lists `end`. Returns the folder."""
    torch.manual_seed(3)
    torch.set_num_threads(1)  # for so few weights, threads cost more than they save
    config = config or tiny_llama(len(tokenizer))
    causal: Any = AutoModelForCausalLM
    model = causal.from_config(config)
    tokenizer.save_pretrained(folder)
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    written = json.loads((folder / "generation_config.json").read_text())
    written["eos_token_id"] = end
    (folder / "generation_config.json").write_text(json.dumps(written))
    return folder


def tiny_llama(tokens: int) -> Any:
    make: Any = LlamaConfig
    return make(
        vocab_size=tokens,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )


class TrainingProcessHere:
    """The training process' requests, executed in this process."""

    def __init__(self) -> None:
        self._written = BytesIO()
        self._handler = RequestHandler(self._written)

    def request(self, request: Request) -> Reply:
        """Return the last reply."""
        self._handler.handle(request, threading.Event())
        return REPLY.validate_json(self._written.getvalue().splitlines()[-1])

    def load(self, folder: Path, **options: Any) -> Reply:
        return self.request(Load(base=folder, precision="fp32", **options))

    def learn(self, answers: Mapping[str, str], folder: Path) -> Sequence[GreedyAnswer]:
        """Train on the answers until they are learned; return the model's answers to the same
        questions.
        """
        trained = self.request(
            Train(
                examples=tuple(sample(*each) for each in answers.items()),
                configuration=OVERFIT,
                parent=None,
                checkpoints=folder / "run",
                out=folder / "adapter",
                base_name="tiny",
            )
        )
        assert isinstance(trained, Trained), trained
        generated = self.request(
            Generate(
                adapter=folder / "adapter",
                probes=tuple(question(text) for text in answers),
                prompts=(),
                max_tokens=200,
                max_new_tokens=24,
            )
        )
        assert isinstance(generated, Generated), generated
        return generated.probes


def question(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def sample(text: str, answer: str) -> Sample:
    return Sample(messages=question(text), answer=answer)
