"""Template and parameters of an Ollama tag, read from the GGUF file to serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.registry.deploy.targets.go_template import ChatFormat, chat_format
from services.registry.gguf.layout import GgufLayout, read_layout
from shared.config.template_variables import TemplateVariables

_TEMPLATE = "tokenizer.chat_template"
_ADD_BOS = "tokenizer.ggml.add_bos_token"


@dataclass(frozen=True, slots=True)
class Modelfile:
    """Settings of a tag. `template` is a Go template; None if the base's template cannot be
    converted and Ollama chooses its own.
    """

    template: str | None
    parameters: Mapping[str, Any]


def read_modelfile(
    path: Path, context: int, threads: int, template: TemplateVariables
) -> Modelfile:
    """Return the settings for a GGUF file. Raises InvalidArtefact for another file.

    `context` is in tokens, limited to what the model supports; with `threads` 0 Ollama chooses.
    """
    layout = read_layout(np.memmap(path, np.uint8, "r").data)
    supported = int(layout.scalars.get(f"{layout.architecture}.context_length", context))
    # Ollama's defaults are a small context and a repeat penalty of 1.1, which the evaluation does
    # not have.
    parameters: dict[str, Any] = {"num_ctx": min(context, supported), "repeat_penalty": 1.0}
    if threads:
        parameters["num_thread"] = threads
    chat = _chat_format(layout, template)
    if chat is None:
        return Modelfile(None, parameters)
    if chat.stop:
        parameters["stop"] = list(chat.stop)
    return Modelfile(chat.go_template, parameters)


def _chat_format(layout: GgufLayout, template: TemplateVariables) -> ChatFormat | None:
    jinja = layout.scalars.get(_TEMPLATE)
    if not isinstance(jinja, str):
        return None
    bos = "" if _adds_bos(layout) else _special_token(layout, "bos")
    return chat_format(jinja, bos, _special_token(layout, "eos"), template)


def _adds_bos(layout: GgufLayout) -> bool:
    """True if the tokenizer puts the BOS token before a text; by llama.cpp's rules if the file does
    not say.
    """
    sentencepiece = layout.scalars.get("tokenizer.ggml.model") == "llama"
    return bool(
        layout.scalars.get(
            _ADD_BOS,
            sentencepiece or layout.scalars.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3"),
        )
    )


def _special_token(layout: GgufLayout, kind: str) -> str:
    """Return the text of a special token, empty if the file has none."""
    number = layout.scalars.get(f"tokenizer.ggml.{kind}_token_id")
    return layout.array_string("tokenizer.ggml.tokens", int(number)) if number is not None else ""
