"""The chat template of a base, which is Jinja in a GGUF file, in the form that Ollama reads: a
template of Go. Pure.

Ollama does not run Jinja: it takes the most similar of the templates that it knows, and passes over
small differences, a default system message among them. Most chat templates put fixed text around
each message by its role. So the text is read off short conversations, and the result holds if it
gives what Jinja gives for all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

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
    """What stands around messages: `around` by role, before and after; `opening` at the very
    beginning, `always` or only when no system message comes first; `answer` where the model goes
    on.
    """

    wrappers: Mapping[str, tuple[str, str]]
    prefix: str
    prefix_always: bool
    generation_prompt: str

    def render(self, conversation: Conversation) -> str:
        """The prompt, as the Go template makes it."""
        opening = self.prefix if self.prefix_always or conversation[0][0] != "system" else ""
        turns = (
            self.wrappers[role][0] + content + self.wrappers[role][1]
            for role, content in conversation
        )
        return opening + "".join(turns) + self.generation_prompt

    @property
    def go_template(self) -> str:
        """The Go template. Messages of other roles are left out."""
        opening = _go_literal(self.prefix)
        if opening and not self.prefix_always:
            opening = f'{{{{ if and (eq $i 0) (ne $m.Role "system") }}}}{opening}{{{{ end }}}}'
        elif opening:
            opening = f"{{{{ if eq $i 0 }}}}{opening}{{{{ end }}}}"
        turns = "".join(
            f"{{{{ if eq $m.Role {_go_string(role)} }}}}{_go_literal(before)}{{{{ $m.Content "
            f"}}}}{_go_literal(after)}{{{{ end }}}}"
            for role, (before, after) in self.wrappers.items()
        )
        return (
            f"{{{{ range $i, $m := .Messages }}}}{opening}{turns}{{{{ end "
            f"}}}}{_go_literal(self.generation_prompt)}"
        )

    @property
    def stop(self) -> tuple[str, ...]:
        """What the model writes when its turn is over."""
        ending = self.wrappers["assistant"][1].strip()
        return (ending,) if ending else ()


def chat_format(jinja: str, bos: str, eos: str) -> ChatFormat | None:
    """The format behind a chat template; None when messages are not written in the manner above.
    `bos` is empty where the tokenizer puts that token in front by itself.
    """
    try:
        template = _JinjaTemplate(jinja, bos, eos)
        found = _derive(template)
        same = all(
            template.render(roles, True) == found.render(_conversation(roles))
            for roles in _CHECKED_ROLES
        )
    except (TemplateError, ValueError, TypeError):
        return None
    return found if same else None


def _derive(template: "_JinjaTemplate") -> ChatFormat:
    """Each text is what one conversation has more than another. Raises ValueError where one is not
    the beginning of the other.
    """
    alone = template.render(("user",), False)
    first, user_after = _split(alone, 1)
    _, between, assistant_after = _split(template.render(("user", "assistant"), False), 2)
    *_, second, _ = _split(template.render(("user", "assistant", "user"), False), 3)
    before_system, after_system, _ = _split(template.render(("system", "user"), False), 2)
    user_before = _strip_prefix(second, assistant_after)
    if not (first.endswith(user_before) and after_system.endswith(user_before)):
        raise ValueError("what stands before a question depends on where it stands")
    opening = first.removesuffix(user_before)
    always = before_system.startswith(opening)
    around = {
        "system": (
            before_system.removeprefix(opening) if always else before_system,
            after_system.removesuffix(user_before),
        ),
        "user": (user_before, user_after),
        "assistant": (_strip_prefix(between, user_after), assistant_after),
    }
    return ChatFormat(
        around, opening, always, _strip_prefix(template.render(("user",), True), alone)
    )


class _JinjaTemplate:
    """A chat template in the environment that the transformers library gives it, but for what
    depends on the day.
    """

    def __init__(self, source: str, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        self._template = environment.from_string(source)
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def render(self, roles: Sequence[str], answer: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in _conversation(roles)]
        return self._template.render(
            messages=messages, add_generation_prompt=answer, **self._tokens
        )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _conversation(roles: Sequence[str]) -> Conversation:
    return [(role, _placeholder(number)) for number, role in enumerate(roles)]


def _placeholder(number: int) -> str:
    """A message's content, such as no template contains."""
    return f"⟦{number}⟧"


def _split(text: str, contents: int) -> Sequence[str]:
    """What stands before, between and after the first `contents` messages."""
    parts = []
    for number in range(contents):
        part, mark, text = text.partition(_placeholder(number))
        if not mark:
            raise ValueError("a message is left out or altered")
        parts.append(part)
    return [*parts, text]


def _strip_prefix(text: str, beginning: str) -> str:
    if not text.startswith(beginning):
        raise ValueError("a message is written otherwise when another one follows")
    return text[len(beginning) :]


def _go_literal(text: str) -> str:
    """Text in a Go template, as a string in an action: so white space and braces stay what they
    are.
    """
    return f"{{{{ {_go_string(text)} }}}}" if text else ""


def _go_string(text: str) -> str:
    """A string of Go. JSON's escapes are Go's as long as characters beyond ASCII stand for
    themselves.
    """
    return json.dumps(text, ensure_ascii=False)
