"""Answers are trained to end as the chat template ends them, and generation stops there."""

from pathlib import Path
from typing import Any

import pytest

from services.trainer.data.end_of_turn import NoEndOfTurn, end_of_turn
from services.trainer.protocol import Loaded, RequestRefused
from services.trainer.training.base_tokenizer import load_vocabulary
from tests.bases.templates import HEADER_TOKENS, HEADERS, INSTRUCT
from tests.bases.tokenizers_of_kinds import byte_level, sentencepiece
from tests.bases.twins import TrainingProcessHere, save_twin


def headers() -> Any:
    return byte_level(HEADER_TOKENS, bos_token="<|bos|>", chat_template=HEADERS)


def ids(tokenizer: Any, *tokens: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(token) for token in tokens]


def test_the_end_is_the_one_that_the_template_writes() -> None:
    """Llama 3's order: end of text, end of message, end of turn."""
    tokenizer = headers()
    text, message, turn = ids(tokenizer, "<|end_of_text|>", "<|eom|>", "<|eot|>")
    found = end_of_turn(tokenizer, [text, message, turn], {})
    assert found.tokens == (turn, text, message)
    assert found.warning == (
        "the chat template ends an answer with <|eot|>, and its configuration first lists "
        "<|end_of_text|>; answers are trained to end with <|eot|>"
    )
    assert not end_of_turn(tokenizer, [turn, text], {}).warning
    unlisted = end_of_turn(tokenizer, [text], {})
    assert (unlisted.tokens, "lists only <|end_of_text|>" in unlisted.warning) == (
        (turn, text),
        True,
    )
    assert end_of_turn(tokenizer, [], {}).tokens == (turn,)


def test_sentencepiece_templates_end_with_their_token() -> None:
    tokenizer = sentencepiece(eos_token="</s>", chat_template=INSTRUCT)
    assert end_of_turn(tokenizer, [2], {}).tokens == (2,)


def test_without_an_end_in_the_template_the_listed_one_counts() -> None:
    tokenizer = headers()
    tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }} and then {% endfor %}"
    first, second = ids(tokenizer, "<|end_of_text|>", "<|eot|>")
    assert end_of_turn(tokenizer, [first], {}).tokens == (first,)
    assert "without any of the tokens" in end_of_turn(tokenizer, [first, second], {}).warning
    with pytest.raises(NoEndOfTurn):
        end_of_turn(tokenizer, [], {})


def test_a_trained_model_stops_where_the_template_does(tmp_path: Path) -> None:
    tokenizer = headers()
    folder = save_twin(tmp_path / "base", tokenizer, ids(tokenizer, "<|end_of_text|>", "<|eot|>"))
    process = TrainingProcessHere()
    assert isinstance(process.load(folder), Loaded)
    end = load_vocabulary(str(folder)).end_tokens[0]
    assert tokenizer.convert_ids_to_tokens(end) == "<|eot|>"
    learned = process.learn({"what": "this", "who": "that"}, tmp_path)
    assert [answer.text for answer in learned] == ["this", "that"]


@pytest.mark.parametrize(
    ("template", "end", "reason"),
    [(None, 1, "no chat template"), (HEADERS.replace("<|eot|>", " "), None, "ends an answer")],
)
def test_a_base_without_template_or_end_is_refused(
    template: str | None, end: int | None, reason: str, tmp_path: Path
) -> None:
    tokenizer = headers()
    tokenizer.chat_template = template
    refused = TrainingProcessHere().load(save_twin(tmp_path, tokenizer, end))
    assert isinstance(refused, RequestRefused)
    assert reason in refused.reason
    assert refused.advice
