"""A prompt and its answer begin the template's own rendering of the whole conversation, token by
token, or the base is refused before training.
"""

from pathlib import Path
from typing import Any

import pytest

from services.trainer.data.answer_form import PLAIN as PLAIN_FORM
from services.trainer.data.answer_form import AnswerForm
from services.trainer.data.tokenization import encode, encode_prompt
from services.trainer.errors import RunFailed
from services.trainer.protocol import RequestRefused
from services.trainer.training.base_tokenizer import load_vocabulary
from shared.config.template_variables import TemplateVariables
from shared.events import Message
from shared.messaging.reasoning import with_reasoning
from tests.bases import templates
from tests.bases.tokenizers_of_kinds import byte_level, sentencepiece
from tests.bases.twins import TrainingProcessHere, sample, save_twin

THINKING = TemplateVariables(enable_thinking=True)
ANSWERED = (
    Message(role="user", content="first?"),
    Message(role="assistant", content="yes"),
    Message(role="user", content="second?"),
)


def saved(folder: Path, template: str, kind: Any = byte_level) -> Path:
    if kind is sentencepiece:
        tokenizer, end = kind(eos_token="</s>", chat_template=template), "</s>"
    else:
        tokenizer, end = kind(templates.TURN_TOKENS, chat_template=template), "<|eot|>"
    return save_twin(folder, tokenizer, tokenizer.convert_tokens_to_ids(end))


@pytest.mark.parametrize(
    ("template", "kind", "form"),
    [
        ("PLAIN", byte_level, PLAIN_FORM),
        ("THINKS_IF_IT_LIKES", byte_level, PLAIN_FORM),
        ("THINKS_UNLESS_TOLD", byte_level, PLAIN_FORM),
        ("DATED", byte_level, PLAIN_FORM),
        ("INSTRUCT", sentencepiece, PLAIN_FORM),
        ("LINES", sentencepiece, AnswerForm("", "\n")),
    ],
)
def test_prompt_and_answer_begin_the_whole_conversation(
    template: str, kind: Any, form: AnswerForm, tmp_path: Path
) -> None:
    vocabulary = load_vocabulary(str(saved(tmp_path, getattr(templates, template), kind)))
    assert vocabulary.answer_form == form
    example = encode(vocabulary, sample("what?", "insky Zach"), 500)
    whole = vocabulary.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "what?"},
            {"role": "assistant", "content": "insky Zach"},
        ],
        tokenize=False,
        **vocabulary.template.model_dump(),
    )
    ids = vocabulary.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert list(example.ids) == ids[: len(example.ids)]
    assert vocabulary.decode_answer(example.ids[example.answer_start : -1]) == "insky Zach"


def test_a_closed_block_that_only_the_prompt_has_is_accepted(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(str(saved(tmp_path, templates.FORGETS_BLOCKS)))
    prompt = vocabulary.tokenizer.decode(encode_prompt(vocabulary, ANSWERED, 500))
    assert prompt.endswith("second?<|eot|>\n<|start|>assistant\n<think>\n\n</think>\n\n")
    assert prompt.count("<think>") == 1


@pytest.mark.parametrize(
    ("template", "variables", "reason", "advice"),
    [
        ("THINKS_ALWAYS", {}, "opens a block of thinking", "without thinking"),
        ("THINKS_UNLESS_TOLD", {"template": THINKING}, "opens a block", "set thinking: drop"),
        ("CHANNELS", {}, "'<|channel|>final<|message|>' between a prompt", "without thinking"),
    ],
)
def test_answers_in_another_place_are_refused_at_load(
    template: str, variables: dict[str, Any], reason: str, advice: str, tmp_path: Path
) -> None:
    refused = TrainingProcessHere().load(saved(tmp_path, getattr(templates, template)), **variables)
    assert isinstance(refused, RequestRefused)
    assert reason in refused.reason
    assert advice in refused.advice


def test_kept_thoughts_are_part_of_the_answer(tmp_path: Path) -> None:
    folder = str(saved(tmp_path, templates.THINKS_IF_IT_LIKES))
    vocabulary = load_vocabulary(folder, THINKING)
    answer = with_reasoning("four", "two and two")
    example = encode(vocabulary, sample("sum?", answer), 500)
    assert vocabulary.tokenizer.decode(example.ids).endswith(f"assistant\n{answer}<|eot|>")
    with pytest.raises(RunFailed):
        load_vocabulary(str(saved(tmp_path / "other", templates.THINKS_ALWAYS)), THINKING)


def test_the_date_of_a_prompt_does_not_depend_on_the_day(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(str(saved(tmp_path, templates.DATED)))
    prompt = vocabulary.tokenizer.decode(encode_prompt(vocabulary, ANSWERED, 500))
    assert "Today: 26 Jul 2024" in prompt
