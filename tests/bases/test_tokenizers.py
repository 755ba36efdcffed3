"""A base's tokenizer returns texts as they were, and makes the tokens of the server of them."""

import json
import shutil
from itertools import product
from pathlib import Path

import httpx
import pytest
from tokenizers.pre_tokenizers import Whitespace

from ratchet.local_stack.bases import SMOLLM2, correct_tokenizer
from ratchet.serving.engine import Engine, EngineOptions
from services.trainer.data.round_trip import OTHER_TEXTS, TextLost, changed_texts, require_words
from services.trainer.data.tokenization import Vocabulary
from services.trainer.protocol import Loaded
from services.trainer.training.base_tokenizer import load_tokenizer, load_vocabulary
from shared.config.models import load_models
from tests.bases.templates import HEADER_TOKENS, HEADERS, INSTRUCT, LINES
from tests.bases.tokenizers_of_kinds import byte_level, sentencepiece
from tests.bases.twins import TrainingProcessHere, save_twin
from tests.trainer.tiny import save_tiny

PIECES = (
    "a", "5", "12", "3.14", " ", "  ", "\n", "\n\n", "\t", "\t\t", "Zoë", "don't", "I'LL", ".",
    "...", "!?", "-", "(", "日本", "العربية", "हिन्दी", "😀", "٣", "½", "²", "x1", "_", "\r\n",
    "\u00a0", "▁",
)  # fmt: skip
TEXTS = [
    *("".join(pieces) for pieces in product(PIECES, repeat=2)),
    *(text for texts in OTHER_TEXTS.values() for text in texts),
    "Steps:\n\n1. Open it.",
    "\n    3",
]


@pytest.mark.model
@pytest.mark.parametrize("name", list(load_models(Path("models")).files))
async def test_declared_bases_make_the_tokens_of_the_server(
    name: str, bases: Path, tmp_path: Path
) -> None:
    base = load_models(Path("models")).get(name).base
    vocabulary = load_vocabulary(str(bases / base.training))
    assert not changed_texts(vocabulary)
    serving, options = str(bases / base.serving), EngineOptions(context=64, slots=1, threads=1)
    engine = await Engine.start("m", serving, options, tmp_path / "log")
    try:
        async with httpx.AsyncClient(base_url=engine.address) as client:
            for text in TEXTS:
                response = await client.post("/tokenize", json={"content": text})
                assert response.json()["tokens"] == vocabulary.control_text.encode(text), text
                assert vocabulary.decode_answer(vocabulary.encode_answer(text)) == text
    finally:
        engine.kill()
        await engine.wait()


@pytest.mark.model
def test_a_folder_of_earlier_versions_is_corrected(bases: Path, tmp_path: Path) -> None:
    for file in (bases / SMOLLM2).glob("token*.json"):
        shutil.copy(file, tmp_path)
    file = tmp_path / "tokenizer.json"
    right = json.loads(file.read_text())
    earlier = {**right, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                                          "trim_offsets": False, "use_regex": True}}  # fmt: skip
    file.write_text(json.dumps(earlier))
    assert len(load_tokenizer(str(tmp_path))("a  5")["input_ids"]) == 4
    correct_tokenizer(file)
    assert json.loads(file.read_text()) == right
    assert len(load_tokenizer(str(tmp_path))("a  5")["input_ids"]) == 3
    assert list(tmp_path.glob("*.partial")) == []


def test_a_wrong_tokenizer_class_does_not_lose_blanks(tmp_path: Path) -> None:
    """transformers replaces the splitting of a tokenizer of bytes that claims this class."""
    tokenizer = byte_level(HEADER_TOKENS, bos_token="<|bos|>", chat_template=HEADERS)
    end = tokenizer.convert_tokens_to_ids("<|eot|>")
    folder = save_twin(tmp_path, tokenizer, end)
    config = folder / "tokenizer_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"})
    )
    assert isinstance(TrainingProcessHere().load(folder), Loaded)
    vocabulary = load_vocabulary(str(folder))
    text = "It left the depot on Monday."
    assert vocabulary.encode_answer(text) == tokenizer(text)["input_ids"]
    assert vocabulary.end_tokens == (end,)


def test_texts_of_every_kind_are_returned() -> None:
    kinds = (
        byte_level(HEADER_TOKENS, chat_template=HEADERS),
        sentencepiece(eos_token="</s>", chat_template=INSTRUCT),
        sentencepiece(eos_token="</s>", chat_template=LINES),
    )
    for tokenizer in kinds:
        vocabulary = Vocabulary(tokenizer, (2,))
        require_words(vocabulary)
        assert changed_texts(vocabulary) == []


def test_lost_texts_are_named_and_lost_words_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (warning,) = load_vocabulary(str(tmp_path)).warnings
    assert warning == (
        "the tokenizer does not return these texts as they were: " + ", ".join(OTHER_TEXTS)
    )
    tokenizer = byte_level(HEADER_TOKENS, chat_template=HEADERS)
    tokenizer.backend_tokenizer.pre_tokenizer = Whitespace()
    with pytest.raises(TextLost, match="of 'left the depot on monday'"):
        require_words(Vocabulary(tokenizer, (2,)))
