"""QLoRA of a Llama with a billion random weights on a GPU: how fast it trains, and how much memory it takes. Nothing is downloaded."""

import tempfile
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.results import Result, report
from ratchet import console
from services.trainer.base_model import learning, quantised
from services.trainer.recipe import train
from services.trainer.tokens import Encoded
from shared.training_config import TrainingConfig

NO_GPU = "no GPU on this machine (torch.cuda.is_available() is false): nothing was measured"
CONFIG = TrainingConfig(batch_size=16, epochs=1, quantisation="nf4", gradient_checkpointing=True)
EXAMPLES, PROMPT, SYSTEM, ANSWER = 320, 300, 100, 84


def a_billion() -> LlamaConfig:
    """The measures of Llama 3.2 1B, with a vocabulary of 32,000."""
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=4096,
    )


def random_base(config: LlamaConfig, device: str) -> Any:
    """A model of random weights in 4 bits, as the trainer loads one for QLoRA."""
    causal: Any = LlamaForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        causal(config).to(torch.bfloat16).save_pretrained(folder)
        return quantised(folder, torch.bfloat16, device)


def examples(count: int, vocabulary: int) -> list[Encoded]:
    """Random tokens after a system prompt that is the same for all."""
    generator = torch.Generator().manual_seed(0)
    system = torch.randint(vocabulary, (SYSTEM,), generator=generator).tolist()
    rest = torch.randint(vocabulary, (count, PROMPT - SYSTEM + ANSWER), generator=generator).tolist()
    return [Encoded((*system, *row), PROMPT) for row in rest]


def tokens_per_second(model: Any, chosen: list[Encoded], config: TrainingConfig, device: str) -> float:
    with learning(model, config, None) as wrapped:
        train(wrapped, chosen[: config.batch_size], config, device, lambda step: None)
        started = time.perf_counter()
        trained = train(wrapped, chosen, config, device, lambda step: None)
        return trained.tokens / (time.perf_counter() - started)


def main() -> None:
    if not torch.cuda.is_available():
        console.out.print(NO_GPU)
        return
    config = a_billion()
    model = random_base(config, "cuda")
    torch.cuda.reset_peak_memory_stats()
    rate = tokens_per_second(model, examples(EXAMPLES, config.vocab_size), CONFIG, "cuda")
    console.out.print(torch.cuda.get_device_name())
    report("gpu", [Result("qlora_tokens_per_second", rate, "1/s"), Result("peak_memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")])


if __name__ == "__main__":
    main()
