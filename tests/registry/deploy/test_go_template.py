"""Conversion of a base's chat template to a Go template."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.deploy.targets.go_template import ChatFormat, chat_format
from shared.config.template_variables import TemplateVariables

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|h|>{{ message.role }}<|/h|>\n\n{{ "
    "message.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|h|>assistant<|/h|>\n\n{% endif %}"
)
INSIDE_THE_QUESTION = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest "
    "= messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message.role == 'user' %}[INST] {% if loop.last and "
    "system %}{{ system }} {% endif %}"
    "{{ message.content }} [/INST]{% else %}{{ message.content }}{{ eos_token }}{% endif "
    "%}{% endfor %}"
)
NO_SYSTEM = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no "
    "system messages') }}{% endif %}"
    "{{ message.content }}{% endfor %}"
)
LAST_IS_OTHERWISE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}{% if not "
    "loop.last %};{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_default_system_message_is_used_only_without_one() -> None:
    derived = chat_format(CHATML, "", "")
    assert derived is not None
    assert derived.render([("user", "Hi")]) == (
        "<|im_start|>system\nYou "
        "help.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert derived.render([("system", "Be brief."), ("user", "Hi")]) == (
        "<|im_start|>system\nBe "
        "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert derived.stop == ("<|im_end|>",)


def test_bos_token_occurs_once_in_every_conversation() -> None:
    derived = chat_format(HEADERS, "<s>", "</s>")
    assert derived is not None
    for conversation in (
        [("user", "Hi")],
        [("system", "Be brief."), ("user", "Hi")],
        [("user", "a"), ("assistant", "b"), ("user", "c")],
    ):
        assert derived.render(conversation).startswith("<s><|h|>")
        assert derived.render(conversation).count("<s>") == 1
    assert '{{ if eq $i 0 }}{{ "<s>" }}{{ end }}' in derived.go_template


@pytest.mark.parametrize(
    "jinja",
    [INSIDE_THE_QUESTION, NO_SYSTEM, LAST_IS_OTHERWISE, "{{ messages | length }}", "{% for %}", ""],
)
def test_templates_that_cannot_be_converted_are_refused(jinja: str) -> None:
    assert chat_format(jinja, "", "</s>") is None


def test_go_template_quotes_every_text() -> None:
    """Expected by hand: white space, quotes, braces and non-ASCII characters as Go strings."""
    wrappers = {"user": ('"{{', "｜\n"), "assistant": ("", "")}
    assert ChatFormat(wrappers, "", True, "\\").go_template == (
        '{{ range $i, $m := .Messages }}{{ if eq $m.Role "user" }}{{ "\\"{{" }}{{ $m.Content '
        '}}{{ "｜\\n" }}{{ end }}'
        '{{ if eq $m.Role "assistant" }}{{ $m.Content }}{{ end }}{{ end }}{{ "\\\\" }}'
    )


TEXT = st.text(st.sampled_from("<|>abc:\n "), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT, st.booleans())
def test_derived_format_renders_as_jinja(
    before: str, after: str, opening: str, answer: str, always: bool
) -> None:
    """For convertible templates with any texts the prompts are equal."""
    first = "" if always else " and messages[0].role != 'system'"
    jinja = (
        f"{{% for m in messages %}}{{% if loop.first{first} %}}{{{{ {opening!r} }}}}{{% endif %}}"
        f"{{{{ m.role + {before!r} + m.content + {after!r} }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {answer!r} }}}}{{% endif %}}"
    )
    derived = chat_format(jinja, "", "")
    assert derived is not None
    for roles in (("user",), ("system", "user"), ("system", "user", "assistant", "user")):
        expected = "".join(f"{role}{before}x{after}" for role in roles) + answer
        expected = opening + expected if always or roles[0] != "system" else expected
        assert derived.render([(role, "x") for role in roles]) == expected


def test_thinking_and_date_are_set_as_in_training() -> None:
    jinja = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ date_string }}: "
        "{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
    )
    prompts = []
    for thinks in (False, True):
        derived = chat_format(jinja, "", "", TemplateVariables(enable_thinking=thinks))
        assert derived is not None
        prompts.append(derived.generation_prompt)
    assert prompts == ["26 Jul 2024: <think></think>", "26 Jul 2024: "]
