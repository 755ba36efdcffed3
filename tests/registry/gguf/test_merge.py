"""Merged files: likelihoods as with transformers and PEFT, format, metadata, refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors import safe_open

from ratchet.local_stack.bases import SMOLLM2
from services.registry.gguf import lora_delta as lora
from services.registry.gguf.lora_delta import lora_deltas, permute
from services.registry.gguf.merge import MergedFile, merge
from shared.errors import InvalidArtefact, ObjectNotFound
from shared.identity import digest_of_file
from shared.storage.adapters import CONFIG, Adapter
from tests.registry.reference import Reference, logprobs_of_gguf


def _mean_difference(reference: Reference, logprobs: Any) -> float:
    return float(np.mean(np.abs(np.array(reference.text_logprobs) - np.array(logprobs))))


def test_permute_turns_halves_of_a_head_into_neighbouring_pairs() -> None:
    """Two heads of four rows: rows 0 1 | 2 3 of a head are the halves that transformers rotates;
    llama.cpp expects 0 2 1 3.
    """
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert permute(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.model
def test_merged_weights_have_the_likelihoods_of_peft(
    reference: Reference, merged: MergedFile, bases: Path
) -> None:
    assert _mean_difference(reference, logprobs_of_gguf(merged.path, bases / SMOLLM2)) < 0.005


@pytest.mark.model
def test_likelihoods_differ_without_the_permutation(
    reference: Reference, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "_PERMUTED", frozenset())
    monkeypatch.setattr(lora, "_UNPERMUTED", frozenset({"llama"}))
    wrong = merge(bases / SMOLLM2 / "model.gguf", reference.adapter, tmp_path / "wrong.gguf")
    assert _mean_difference(reference, logprobs_of_gguf(wrong.path, bases / SMOLLM2)) > 0.1


@pytest.mark.model
def test_merged_file_is_f16_with_f32_norms_and_same_metadata(
    merged: MergedFile, bases: Path
) -> None:
    before, after = GGUFReader(bases / SMOLLM2 / "model.gguf"), GGUFReader(merged.path)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in after.tensors}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {"F16"}
    assert [tensor.name for tensor in after.tensors] == [tensor.name for tensor in before.tensors]
    assert after.fields["general.file_type"].contents() == 1
    assert set(after.fields) == set(before.fields)
    for name in (
        "tokenizer.chat_template",
        "llama.attention.head_count_kv",
        "tokenizer.ggml.bos_token_id",
    ):
        assert after.fields[name].contents() == before.fields[name].contents()


@pytest.mark.model
def test_merge_is_deterministic_and_returns_the_file_digest(
    reference: Reference, merged: MergedFile, bases: Path, tmp_path: Path
) -> None:
    again = merge(bases / SMOLLM2 / "model.gguf", reference.adapter, tmp_path / "again.gguf")
    assert merged.digest == digest_of_file(merged.path) == again.digest
    assert [path.name for path in tmp_path.iterdir()] == ["again.gguf"]


@pytest.mark.model
def test_version_zero_is_the_dequantised_base(bases: Path, tmp_path: Path) -> None:
    plain = merge(bases / SMOLLM2 / "model.gguf", None, tmp_path / "v0.gguf")
    weights = {tensor.name: tensor.data for tensor in GGUFReader(plain.path).tensors}
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.3.attn_v.weight": "model.layers.3.self_attn.v_proj.weight",
        "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    with safe_open(bases / SMOLLM2 / "model.safetensors", "np") as dequantised:
        for gguf_name, model_name in names.items():
            assert np.array_equal(
                dequantised.get_tensor(model_name).astype(weights[gguf_name].dtype),
                weights[gguf_name],
            ), gguf_name


def _with_config(adapter: Adapter, **changes: Any) -> Adapter:
    config = {**json.loads(adapter.files[CONFIG]), **changes}
    return replace(adapter, files={**adapter.files, CONFIG: json.dumps(config).encode()})


@pytest.mark.model
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias='none'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
    ],
)
def test_unsupported_adapter_options_are_refused(
    reference: Reference, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArtefact, match=message):
        lora_deltas(_with_config(reference.adapter, **changes), "llama", 9, 3)


@pytest.mark.model
def test_unknown_architecture_is_refused(reference: Reference) -> None:
    with pytest.raises(InvalidArtefact, match="falcon"):
        lora_deltas(reference.adapter, "falcon", 9, 3)


@pytest.mark.model
def test_scale_is_alpha_over_rank_or_over_its_root(reference: Reference) -> None:
    plain = lora_deltas(reference.adapter, "llama", 9, 3)
    rooted = lora_deltas(_with_config(reference.adapter, use_rslora=True), "llama", 9, 3)
    assert {change.scale for change in plain.values()} == {2.0}
    assert {round(change.scale, 6) for change in rooted.values()} == {round(16 / 8**0.5, 6)}


def test_missing_base_and_invalid_file_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="RATCHET_BASES"):
        merge(tmp_path / "none.gguf", None, tmp_path / "out.gguf")
    (tmp_path / "text.gguf").write_bytes(b"not a model, only text that is long enough")
    with pytest.raises(InvalidArtefact, match="not a GGUF file"):
        merge(tmp_path / "text.gguf", None, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
