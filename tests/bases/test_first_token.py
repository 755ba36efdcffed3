"""A prompt begins with the token that the tokenizer puts before every text, once, whether the chat
template writes it or not.
"""

from pathlib import Path

import pytest

from services.trainer.data.tokenization import encode, encode_prompt
from services.trainer.training.base_tokenizer import load_vocabulary
from tests.bases.templates import HEADER_TOKENS, HEADERS
from tests.bases.tokenizers_of_kinds import beginning_with, byte_level
from tests.bases.twins import question, sample, save_twin


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("writes", [True, False])
def test_a_prompt_begins_with_the_first_token_once(
    adds: bool, writes: bool, tmp_path: Path
) -> None:
    template = HEADERS if writes else HEADERS.removeprefix("{{ bos_token }}")
    tokenizer = byte_level(HEADER_TOKENS, bos_token="<|bos|>", chat_template=template)
    bos, end = tokenizer.convert_tokens_to_ids(["<|bos|>", "<|eot|>"])
    if adds:
        beginning_with(tokenizer, "<|bos|>")
    vocabulary = load_vocabulary(str(save_twin(tmp_path, tokenizer, end)))
    ids = encode_prompt(vocabulary, question("Hi"), 500)
    assert (ids[0] == bos, ids.count(bos)) == (adds or writes, int(adds or writes))
    example = encode(vocabulary, sample("Hi", "yes"), 500)
    assert example.ids[: example.answer_start] == ids
    assert encode_prompt(vocabulary, question("Hi"), len(ids) - 1) == ids[1:]
