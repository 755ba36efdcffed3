"""An architecture gets the attention implementation that computes what it needs."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from services.trainer.protocol import Loaded, Score, Scores
from services.trainer.training.attention import attention_implementation
from services.trainer.training.base_tokenizer import load_vocabulary
from services.trainer.training.scoring import score
from tests.bases.architectures import ARCHITECTURES, tiny_config
from tests.bases.templates import HEADER_TOKENS, HEADERS
from tests.bases.tokenizers_of_kinds import byte_level
from tests.bases.twins import TrainingProcessHere, sample, save_twin

SAMPLES = (sample("what is this", "a small model"), sample("who", "that one"))


def test_only_soft_capping_needs_another_implementation() -> None:
    needs = {name: attention_implementation(tiny_config(name)) for name in ARCHITECTURES}
    assert {name for name, needed in needs.items() if needed} == {"gemma2"}
    assert needs["gemma2"] == "eager"


def test_soft_capping_counts_in_scores(tmp_path: Path) -> None:
    """The cap is small, so that it changes the scores of random weights by much."""
    from services.trainer.data.tokenization import encode

    tokenizer = byte_level(HEADER_TOKENS, bos_token="<|bos|>", chat_template=HEADERS)
    config = tiny_config(
        "gemma2",
        vocab_size=len(tokenizer),
        attn_logit_softcapping=0.05,
        initializer_range=0.6,
    )
    end = tokenizer.convert_tokens_to_ids("<|eot|>")
    folder = save_twin(tmp_path, tokenizer, end, config)
    process = TrainingProcessHere()
    assert isinstance(process.load(folder), Loaded)
    scored = process.request(Score(adapter=None, samples=SAMPLES, max_tokens=200))
    assert isinstance(scored, Scores)
    vocabulary = load_vocabulary(str(folder))
    encoded = [encode(vocabulary, each, 200) for each in SAMPLES]
    causal: Any = AutoModelForCausalLM
    references = {
        name: score(
            causal.from_pretrained(folder, attn_implementation=name).eval(),
            encoded,
            "cpu",
            lambda _: None,
        )
        for name in ("eager", "sdpa")
    }
    assert list(scored.scores) == pytest.approx(references["eager"], abs=1e-4)
    assert list(scored.scores) != pytest.approx(references["sdpa"], abs=0.01)
