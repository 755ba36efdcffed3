"""What Ollama has to be told of a model beside its weights, read from the file to serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.registry.deploy.targets.go_template import ChatFormat, chat_format
from services.registry.gguf.layout import GgufLayout, read_layout

_TEMPLATE = "tokenizer.chat_template"
_ADD_BOS = "tokenizer.ggml.add_bos_token"


@dataclass(frozen=True, slots=True)
class Modelfile:
    """`template` in Go's form; None where the base's is not of a kind that can be put so, and
    Ollama has to choose by itself.
    """

    template: str | None
    parameters: Mapping[str, Any]


def read_modelfile(path: Path, context: int, threads: int) -> Modelfile:
    """For a GGUF file and a context of so many tokens, or as many as the model takes; threads are
    left to Ollama when they are 0. Raises Unusable for another file.
    """
    layout = read_layout(np.memmap(path, np.uint8, "r").data)
    most = int(layout.scalars.get(f"{layout.architecture}.context_length", context))
    # Ollama's own are a small context and a penalty of 1.1 on words that have been used, which the
    # evaluation does not know.
    parameters: dict[str, Any] = {"num_ctx": min(context, most), "repeat_penalty": 1.0}
    if threads:
        parameters["num_thread"] = threads
    found = _chat_format(layout)
    if found is None:
        return Modelfile(None, parameters)
    if found.stop:
        parameters["stop"] = list(found.stop)
    return Modelfile(found.go_template, parameters)


def _chat_format(layout: GgufLayout) -> ChatFormat | None:
    jinja = layout.scalars.get(_TEMPLATE)
    if not isinstance(jinja, str):
        return None
    bos = "" if _adds_bos(layout) else _special_token(layout, "bos")
    return chat_format(jinja, bos, _special_token(layout, "eos"))


def _adds_bos(layout: GgufLayout) -> bool:
    """Whether the tokenizer puts the token of beginnings before a text; llama.cpp's rules where the
    file does not say it.
    """
    pieces_of_words = layout.scalars.get("tokenizer.ggml.model") == "llama"
    return bool(
        layout.scalars.get(
            _ADD_BOS,
            pieces_of_words or layout.scalars.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3"),
        )
    )


def _special_token(layout: GgufLayout, which: str) -> str:
    """The text of a special token, empty if there is none."""
    number = layout.scalars.get(f"tokenizer.ggml.{which}_token_id")
    return layout.array_string("tokenizer.ggml.tokens", int(number)) if number is not None else ""
