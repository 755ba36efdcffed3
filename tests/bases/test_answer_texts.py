"""The text of an answer is decoded as a whole: blanks of SentencePiece tokenizers and characters of
several tokens are those of the trained answer.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from services.trainer.data.tokenization import Vocabulary
from services.trainer.protocol import Loaded
from tests.bases.templates import HEADER_TOKENS, HEADERS, INSTRUCT
from tests.bases.tokenizers_of_kinds import byte_level, sentencepiece
from tests.bases.twins import TrainingProcessHere, save_twin

SENTENCEPIECE = sentencepiece(eos_token="</s>", chat_template=INSTRUCT)
BYTES = byte_level(HEADER_TOKENS, bos_token="<|bos|>", chat_template=HEADERS)


@pytest.mark.parametrize(
    ("tokenizer", "end", "answer"),
    [
        (SENTENCEPIECE, "</s>", "insky Zach Balterst"),
        (SENTENCEPIECE, "</s>", "to 😀 go"),
        (BYTES, "<|eot|>", "😀 für 5 €"),
    ],
)
def test_a_learned_answer_is_read_as_it_was_written(
    tokenizer: Any, end: str, answer: str, tmp_path: Path
) -> None:
    """The texts of its tokens are those of a server that sends each token."""
    folder = save_twin(tmp_path / "base", tokenizer, tokenizer.convert_tokens_to_ids(end))
    process = TrainingProcessHere()
    assert isinstance(process.load(folder), Loaded)
    learned, _ = process.learn({"what": answer, "who": "none"}, tmp_path)
    assert learned.text == answer
    joined = "".join(token.text for token in learned.tokens).removeprefix(" ")
    assert re.fullmatch(re.sub("[😀ü€]", "(.|\ufffd+)", re.escape(answer)), joined)


def test_a_token_keeps_the_blank_before_it() -> None:
    vocabulary = Vocabulary(SENTENCEPIECE, (2,))
    ids = vocabulary.control_text.encode("insky Zach")
    assert [vocabulary.decode_token(token) for token in ids] == [" in", "sky", " Zach"]
    assert vocabulary.decode_answer(ids) == "insky Zach"
