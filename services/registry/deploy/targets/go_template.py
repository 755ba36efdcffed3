"""Conversion of a base's chat template, Jinja in a GGUF file, to a Go template for Ollama. Pure.

Ollama does not run Jinja: it takes the most similar of its own templates, and ignores small
differences, such as a default system message. Most chat templates put fixed text around each
message by its role. That text is derived from short conversations, and the result is accepted if it
renders all of them as Jinja does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables

Conversation = Sequence[tuple[str, str]]  # (role, content)

_CHECKED_ROLES: Sequence[Sequence[str]] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """Text around messages. `wrappers`: text before and after a message, by role. `prefix`: text at
    the beginning, always if `prefix_always`, else only without a leading system message.
    `generation_prompt`: text before the model's answer.
    """

    wrappers: Mapping[str, tuple[str, str]]
    prefix: str
    prefix_always: bool
    generation_prompt: str

    def render(self, conversation: Conversation) -> str:
        """Render the prompt as the Go template does."""
        prefix = self.prefix if self.prefix_always or conversation[0][0] != "system" else ""
        turns = (
            self.wrappers[role][0] + content + self.wrappers[role][1]
            for role, content in conversation
        )
        return prefix + "".join(turns) + self.generation_prompt

    @property
    def go_template(self) -> str:
        """The Go template. It omits messages of other roles."""
        prefix = _go_literal(self.prefix)
        if prefix and not self.prefix_always:
            prefix = f'{{{{ if and (eq $i 0) (ne $m.Role "system") }}}}{prefix}{{{{ end }}}}'
        elif prefix:
            prefix = f"{{{{ if eq $i 0 }}}}{prefix}{{{{ end }}}}"
        turns = "".join(
            f"{{{{ if eq $m.Role {_go_string(role)} }}}}{_go_literal(before)}{{{{ $m.Content "
            f"}}}}{_go_literal(after)}{{{{ end }}}}"
            for role, (before, after) in self.wrappers.items()
        )
        return (
            f"{{{{ range $i, $m := .Messages }}}}{prefix}{turns}{{{{ end "
            f"}}}}{_go_literal(self.generation_prompt)}"
        )

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop sequences: the text with which the model ends its turn."""
        ending = self.wrappers["assistant"][1].strip()
        return (ending,) if ending else ()


def chat_format(
    jinja: str, bos: str, eos: str, variables: TemplateVariables = DEFAULT_VARIABLES
) -> ChatFormat | None:
    """Derive the format of a chat template; None if it does more than put text around messages.

    `bos` is empty if the tokenizer adds that token.
    """
    try:
        template = _JinjaTemplate(jinja, bos, eos, variables)
        derived = _derive(template)
        equal = all(
            template.render(roles, True) == derived.render(_conversation(roles))
            for roles in _CHECKED_ROLES
        )
    except (TemplateError, ValueError, TypeError):
        return None
    return derived if equal else None


def _derive(template: "_JinjaTemplate") -> ChatFormat:
    """Derive each text as the difference of two conversations. Raises ValueError if the shorter one
    is not a prefix of the longer.
    """
    alone = template.render(("user",), False)
    first, user_after = _split(alone, 1)
    _, between, assistant_after = _split(template.render(("user", "assistant"), False), 2)
    *_, second, _ = _split(template.render(("user", "assistant", "user"), False), 3)
    before_system, after_system, _ = _split(template.render(("system", "user"), False), 2)
    user_before = _strip_prefix(second, assistant_after)
    if not (first.endswith(user_before) and after_system.endswith(user_before)):
        raise ValueError("the text before a question depends on its position")
    prefix = first.removesuffix(user_before)
    always = before_system.startswith(prefix)
    wrappers = {
        "system": (
            before_system.removeprefix(prefix) if always else before_system,
            after_system.removesuffix(user_before),
        ),
        "user": (user_before, user_after),
        "assistant": (_strip_prefix(between, user_after), assistant_after),
    }
    generation_prompt = _strip_prefix(template.render(("user",), True), alone)
    return ChatFormat(wrappers, prefix, always, generation_prompt)


class _JinjaTemplate:
    """A chat template in the environment of the transformers library, without its functions that
    depend on the date.
    """

    def __init__(self, source: str, bos: str, eos: str, variables: TemplateVariables) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        self._template = environment.from_string(source)
        self._variables = {"bos_token": bos, "eos_token": eos, **variables.model_dump()}

    def render(self, roles: Sequence[str], add_generation_prompt: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in _conversation(roles)]
        return self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, **self._variables
        )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _conversation(roles: Sequence[str]) -> Conversation:
    return [(role, _placeholder(number)) for number, role in enumerate(roles)]


def _placeholder(number: int) -> str:
    """Return a message's content, a text that no template contains."""
    return f"⟦{number}⟧"


def _split(text: str, contents: int) -> Sequence[str]:
    """Return the texts before, between and after the first `contents` messages."""
    parts = []
    for number in range(contents):
        part, placeholder, text = text.partition(_placeholder(number))
        if not placeholder:
            raise ValueError("the template omits or changes a message")
        parts.append(part)
    return [*parts, text]


def _strip_prefix(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise ValueError("a message is rendered differently when another one follows")
    return text[len(prefix) :]


def _go_literal(text: str) -> str:
    """Return text as a string in an action of a Go template, which keeps white space and braces."""
    return f"{{{{ {_go_string(text)} }}}}" if text else ""


def _go_string(text: str) -> str:
    """Return a Go string literal. JSON's escapes are Go's while non-ASCII characters stay as they
    are.
    """
    return json.dumps(text, ensure_ascii=False)
