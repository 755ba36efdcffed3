"""Chat templates of each kind, written for these tests."""

HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message.role }}<|end_header|>\n"
    "{{ message.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end_header|>\n{% endif %}"
)
"""Each turn ends with a token other than the end of a text, as in Llama 3."""

HEADER_TOKENS = ("<|bos|>", "<|end_of_text|>", "<|start|>", "<|end_header|>", "<|eom|>", "<|eot|>")

INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "[INST] {{ message.content }} [/INST]{% else %} {{ message.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
"""A blank between a question and its answer, as in Mistral's first templates."""


def _turns(assistant: str, prompt: str) -> str:
    """A template with a turn's role on a line of its own; answers and the end of a prompt are as
    given.
    """
    return (
        "{% for message in messages %}<|start|>{{ message.role }}\n{% if message.role == "
        f"'assistant' %}}{assistant}{{% else %}}{{{{ message.content }}}}{{% endif %}}<|eot|>\n"
        f"{{% endfor %}}{{% if add_generation_prompt %}}<|start|>assistant\n{prompt}{{% endif %}}"
    )


_ALWAYS_OPEN = "<think>\n"
_CLOSED = "<think>\n\n</think>\n\n"
_WITH_BLOCK = (
    "{% if '</think>' in message.content or not loop.last %}{{ message.content }}{% else %}"
    f"{_CLOSED}{{{{ message.content }}}}{{% endif %}}"
)
_WITHOUT_THOUGHTS = "{{ message.content.split('</think>')[-1].lstrip() }}"
_CLOSED_ON_REQUEST = f"{{% if enable_thinking is defined and not enable_thinking %}}{_CLOSED}"

PLAIN = _turns("{{ message.content }}", "")
THINKS_IF_IT_LIKES = _turns(_WITH_BLOCK, _CLOSED_ON_REQUEST + "{% endif %}")
"""The model decides unless thinking is off, as in Qwen3."""

THINKS_UNLESS_TOLD = _turns(
    _WITH_BLOCK, f"{_CLOSED_ON_REQUEST}{{% else %}}{_ALWAYS_OPEN}{{% endif %}}"
)
"""The prompt opens the block unless thinking is off, as in Qwen3.5."""

FORGETS_BLOCKS = _turns(_WITHOUT_THOUGHTS, _CLOSED_ON_REQUEST + "{% endif %}")
"""A finished answer has no block, whatever the prompt had."""

THINKS_ALWAYS = _turns(_WITHOUT_THOUGHTS, _ALWAYS_OPEN)
"""As in the distilled models of DeepSeek-R1."""

CHANNELS = _turns("<|channel|>final<|message|>{{ message.content }}", "")
"""The model writes a header before its answer, as in gpt-oss."""

LINES = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Roles in plain text, as in Zephyr and TinyLlama."""

DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|start|>system\nToday: {{ date_string }}<|eot|>\n" + PLAIN
)
"""The date of today where none is given, as in Llama 3.2."""

TURN_TOKENS = ("<|start|>", "<|eot|>", "<|channel|>", "<|message|>")
