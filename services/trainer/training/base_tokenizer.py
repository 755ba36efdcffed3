"""A base's tokenizer and what its files say of the end of a turn, read without the weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from services.trainer.data.answer_form import UnsuitableTemplate, answer_form
from services.trainer.data.end_of_turn import NoEndOfTurn, end_of_turn
from services.trainer.data.rendering import depends_on_day
from services.trainer.data.round_trip import TextLost, changed_texts, require_words
from services.trainer.data.tokenization import Vocabulary
from services.trainer.errors import RunFailed
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables

_DATED = (
    "the chat template writes today's date into each prompt, so that a deployment is not compared "
    "with its evaluation by the tokens of prompts"
)
_CHANGED = "the tokenizer does not return these texts as they were: "
OTHER_BASE = "take a base whose files are complete, or correct them"


def load_tokenizer(folder: str) -> Any:
    """Load a base's tokenizer. Raises OSError if it is missing.

    The class that its configuration names may split texts in another way than its `tokenizer.json`:
    LlamaTokenizer loses the blanks of tokenizers of bytes. Then the file alone counts.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if _keeps_words(tokenizer) or not (Path(folder) / "tokenizer.json").is_file():
        return tokenizer
    fast: Any = PreTrainedTokenizerFast
    by_file = fast.from_pretrained(folder)
    return by_file if _keeps_words(by_file) else tokenizer


def _keeps_words(tokenizer: Any) -> bool:
    try:
        require_words(Vocabulary(tokenizer, (0,)))
    except TextLost:
        return False
    return True


def load_vocabulary(folder: str, template: TemplateVariables = DEFAULT_VARIABLES) -> Vocabulary:
    """Load a base's tokenizer and check how its chat template writes answers. Raises OSError if
    files are missing, RunFailed if what the base learns would not be what it is served with.
    """
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise RunFailed(
            "the base has no chat template",
            "take a model that was made for conversations, usually named instruct or chat",
        )
    variables = template.model_dump()
    try:
        end = end_of_turn(tokenizer, listed_end_tokens(Path(folder)), variables)
    except NoEndOfTurn as error:
        raise RunFailed(f"the base cannot be used: {error}", OTHER_BASE) from error
    try:
        form = answer_form(tokenizer, variables)
    except UnsuitableTemplate as error:
        raise RunFailed(
            f"the base cannot be used: {error}", _template_advice(template.enable_thinking)
        ) from error
    dated = depends_on_day(tokenizer, template)
    vocabulary = Vocabulary(
        tokenizer,
        end.tokens,
        template,
        form,
        depends_on_day=dated,
        first_token=_first_token(tokenizer),
    )
    try:
        require_words(vocabulary)
    except TextLost as error:
        raise RunFailed(f"the base cannot be used: {error}", OTHER_BASE) from error
    changed = ", ".join(changed_texts(vocabulary))
    warnings = [end.warning, _DATED if dated else "", changed and _CHANGED + changed]
    return replace(vocabulary, warnings=tuple(filter(None, warnings)))


def _first_token(tokenizer: Any) -> int | None:
    """Return the token that a tokenizer puts before every text, None if it puts none."""
    plain, begun = (
        tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True)
    )
    return int(begun[0]) if begun[:1] != plain[:1] else None


def _template_advice(thinks: bool) -> str:
    if thinks:
        return "set thinking: drop in the model file, or take another base"
    return "take a base whose chat template can be asked for an answer without thinking"


def listed_end_tokens(folder: Path) -> tuple[int, ...]:
    """Return the tokens at which the base's configuration ends generation, empty if it names none.

    The generation configuration counts; without one, the model's, as in transformers. Raises
    OSError if there is neither, RunFailed if one cannot be parsed.
    """
    file = folder / "generation_config.json"
    is_generation = file.is_file()
    file = file if is_generation else folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        # A multimodal model has a separate configuration for its language model.
        language = config if is_generation else config.get("text_config", config)
        listed = language.get("eos_token_id")
        tokens = listed if isinstance(listed, list) else [] if listed is None else [listed]
        return tuple(int(token) for token in tokens)
    except (ValueError, TypeError, AttributeError) as error:
        raise RunFailed(f"{file} cannot be parsed: {error}", OTHER_BASE) from error
