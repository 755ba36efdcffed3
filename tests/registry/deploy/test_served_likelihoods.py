"""Likelihoods of a real text, token by token: llama.cpp with a merged file against transformers and
PEFT, for families whose rows of q and k are permuted in GGUF and for those where they are not; a
merge with the wrong row order differs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save

from ratchet.serving.engine import Engine, EngineOptions
from services.registry.gguf import lora_delta as lora
from services.registry.gguf.merge import merge
from shared.identity import digest_of
from shared.storage.adapters import CONFIG, WEIGHTS, Adapter
from tests.registry.reference import TEXT
from tests.support.tiny_models import FAMILIES, TOKENS, ModelPair, make

IDS = list(TEXT.encode("ascii"))
MAX_DIFFERENCE = 0.01
"""Nats: largest mean difference. llama.cpp multiplies in F16 and rounds activations to it; there is
no other difference.
"""
MIN_WRONG_DIFFERENCE = 0.1
"""Nats: smallest mean difference of a wrong merge."""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def twin(family: str, tmp_path: Path) -> ModelPair:
    return make(family, tmp_path)


def _random_adapter(twin: ModelPair, rslora: bool = False) -> tuple[Adapter, list[float]]:
    """Return a random adapter of every projection, largest in q and k, and the likelihoods of the
    text with it.
    """
    torch.manual_seed(5)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, use_rslora=rslora, task_type="CAUSAL_LM"
    )
    model: Any = get_peft_model(twin.model, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.4 if ".q_proj." in name or ".k_proj." in name else 0.05)
    state = {
        name: weight.contiguous()
        for name, weight in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    about = {"peft_type": "LORA", "bias": "none", "r": 4, "lora_alpha": 8, "use_rslora": rslora}
    adapter = Adapter(
        {CONFIG: json.dumps(about).encode(), WEIGHTS: save(state)}, digest_of(b"base")
    )
    return adapter, _likelihoods(model.eval())


def _likelihoods(model: Any) -> list[float]:
    ids = torch.tensor([IDS])
    with torch.no_grad():
        scores = torch.log_softmax(model(ids).logits[0, :-1], -1)
    return [float(score) for score in scores.gather(1, ids[0, 1:, None])[:, 0]]


async def _served(file: Path, folder: Path) -> list[float]:
    """Return the likelihood of each token after those before it, from llama.cpp's own server."""
    engine = await Engine.start(
        "m", str(file), EngineOptions(context=256, slots=1, threads=1), folder / "engine.log"
    )
    try:
        async with httpx.AsyncClient(base_url=engine.address, timeout=60) as client:
            return [
                await _next(client, IDS[:position], IDS[position])
                for position in range(1, len(IDS))
            ]
    finally:
        engine.kill()
        await engine.wait()


async def _next(client: httpx.AsyncClient, before: Sequence[int], token: int) -> float:
    ask = {
        "prompt": list(before),
        "n_predict": 1,
        "n_probs": TOKENS,
        "temperature": 0.0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    answer = (await client.post("/completion", json=ask)).raise_for_status().json()
    (prediction,) = answer["completion_probabilities"]
    return next(float(row["logprob"]) for row in prediction["top_logprobs"] if row["id"] == token)


def _difference(first: Sequence[float], second: Sequence[float]) -> float:
    return float(np.mean(np.abs(np.array(first) - np.array(second))))


async def test_base_has_the_likelihoods_of_transformers(twin: ModelPair, tmp_path: Path) -> None:
    """Precondition of the tests below: both compare the same model."""
    merged = merge(twin.file, None, tmp_path / "v0.gguf")
    assert (
        _difference(await _served(merged.path, tmp_path), _likelihoods(twin.model)) < MAX_DIFFERENCE
    )


@pytest.mark.parametrize("rslora", [False, True])
async def test_merge_has_the_likelihoods_of_peft(
    twin: ModelPair, tmp_path: Path, rslora: bool
) -> None:
    base = _likelihoods(twin.model)
    adapter, expected = _random_adapter(twin, rslora)
    assert _difference(base, expected) > MIN_WRONG_DIFFERENCE, "the adapter changes the likelihoods"
    merged = merge(twin.file, adapter, tmp_path / "v1.gguf")
    assert _difference(await _served(merged.path, tmp_path), expected) < MAX_DIFFERENCE


async def test_merge_with_the_wrong_row_order_differs(
    family: str, twin: ModelPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong order is the unpermuted one for llama, and a permuted one for qwen2."""
    adapter, expected = _random_adapter(twin)
    monkeypatch.setattr(lora, "_PERMUTED", frozenset(FAMILIES) - {"llama"})
    monkeypatch.setattr(lora, "_UNPERMUTED", frozenset({"llama"}))
    wrong = merge(twin.file, adapter, tmp_path / "wrong.gguf")
    assert _difference(await _served(wrong.path, tmp_path), expected) > MIN_WRONG_DIFFERENCE
