"""A base that cannot be loaded is refused with the reason; the training process stays usable."""

import json
from pathlib import Path

import pytest

from services.trainer.protocol import (
    CheckPrompts,
    Load,
    Loaded,
    Request,
    RequestRefused,
    Score,
    Scores,
)
from tests.bases.templates import HEADER_TOKENS, HEADERS
from tests.bases.tokenizers_of_kinds import byte_level
from tests.bases.twins import TrainingProcessHere, question, sample, save_twin


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = byte_level(HEADER_TOKENS, bos_token="<|bos|>", chat_template=HEADERS)
    return save_twin(tmp_path, tokenizer, tokenizer.convert_tokens_to_ids("<|eot|>"))


def change_config(base: Path, **changes: object) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_other_kinds_of_models_are_refused_by_name(base: Path) -> None:
    process = TrainingProcessHere()
    reasons = {"clip": "for the architecture clip", "no-such-architecture": "ValueError"}
    for model_type, reason in reasons.items():
        change_config(base, model_type=model_type, architectures=["Another"])
        refused = process.load(base)
        assert isinstance(refused, RequestRefused), refused
        assert reason in refused.reason
        assert len(refused.reason) < 500
        assert "take a base" in refused.advice
    change_config(base, model_type="llama")
    assert isinstance(process.load(base), Loaded)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "["),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 5}'),
        ("generation_config.json", '{"eos_token_id": "x"}'),
        ("model.safetensors", "no"),
    ],
)
def test_files_that_cannot_be_read_refuse_the_base(base: Path, file: str, content: str) -> None:
    (base / file).write_text(content)
    requests: list[Request] = [Load(base=base, precision="fp32")]
    if "token" in file:
        requests.append(CheckPrompts(base=base, prompts=(question("a"),)))
    for request in requests:
        refused = TrainingProcessHere().request(request)
        assert isinstance(refused, RequestRefused), refused
        assert refused.reason
        assert refused.advice


def test_a_failed_request_is_refused_with_its_error(base: Path) -> None:
    """An adapter's folder without an adapter."""
    process = TrainingProcessHere()
    assert isinstance(process.load(base), Loaded)
    refused = process.request(Score(adapter=base, samples=(sample("a", "b"),), max_tokens=50))
    assert isinstance(refused, RequestRefused), refused
    assert refused.reason.startswith("ValueError: ")
    assert "log" in refused.advice
    scored = process.request(Score(adapter=None, samples=(sample("a", "b"),), max_tokens=50))
    assert isinstance(scored, Scores)
