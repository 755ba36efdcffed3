"""Answers of an OpenAI-compatible client, kept so that feedback need only name them.

    client = capture(OpenAI(base_url=...), ratchet)
    answer = client.chat.completions.create(model="support", messages=[...])
    ratchet.record_feedback(response_id=answer.ratchet_response_id, feedback_type="thumbs_up")

An answer, or a stream of one, gets an id of its own: those that servers give are not always
different.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, Protocol, TypeVar, cast, get_args
from uuid import uuid4

from ratchet_client.event import Message, Role
from ratchet_client.generations import Generation

C = TypeVar("C")

ATTRIBUTE = "ratchet_response_id"
ALIASES = frozenset({"", "latest", "champion", "challenger", "previous"})
"""What stands behind the colon of a served model's name and is no version."""

log = logging.getLogger("ratchet_client")


class GenerationStore(Protocol):
    """Where generations are kept: a Client or an AsyncClient."""

    def keep(self, response_id: str, generation: Generation) -> None: ...


def capture(client: C, ratchet: GenerationStore, *, model: str | None = None) -> C:
    """Let `client.chat.completions.create`, plain, asynchronous or streaming, keep what was asked
    and answered; returns the same client.

    `model` is what the model is called in Ratchet, where that is not what stands before the colon
    in the server's name for it. Kept are whole answers of text to text: none with images or calls
    of tools, none of several choices, no stream that was given up. Whatever cannot be kept is
    answered as ever. Copies of the client (`with_options`) are not captured.
    """
    completions = cast(Any, client).chat.completions
    create = completions.create

    @wraps(create)
    def captured(*arguments: Any, **named: Any) -> Any:
        answer = create(*arguments, **named)
        capturing = _Capturing(ratchet, model, named)
        return capturing.later(answer) if inspect.isawaitable(answer) else capturing.now(answer)

    completions.create = captured
    return client


class _Capturing:
    """One request and what comes back."""

    def __init__(
        self, ratchet: GenerationStore, model: str | None, request: Mapping[str, Any]
    ) -> None:
        self._ratchet = ratchet
        self._model = model
        self._request = request
        self.response_id = str(uuid4())

    def now(self, answer: Any) -> Any:
        if self._request.get("stream"):
            return _Stream(answer, self)
        try:
            setattr(answer, ATTRIBUTE, self.response_id)
            (choice,) = answer.choices
            if not getattr(choice.message, "tool_calls", None):
                self.keep(answer.model, choice.message.content, choice.finish_reason)
        except Exception as error:
            # The application has its answer, whatever shape that has.
            log.warning("an answer was not captured: %r", error)
        return answer

    async def later(self, answer: Any) -> Any:
        return self.now(await answer)

    def keep(self, served: str, output: str | None, finish_reason: str | None) -> None:
        messages = _texts(self._request["messages"])
        if messages and output is not None:
            name, _, version = served.partition(":")
            self._ratchet.keep(
                self.response_id,
                Generation(
                    self._model or name,
                    None if version in ALIASES else version,
                    messages,
                    output,
                    finish_reason,
                ),
            )


class _Stream:
    """A stream as the client gave it, which is listened to."""

    def __init__(self, stream: Any, capturing: _Capturing) -> None:
        self._stream = stream
        self._capturing = capturing
        self._pieces: list[str] = []
        self._is_text = True
        self.ratchet_response_id = capturing.response_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._stream:
            self._listen(chunk)
            yield chunk

    def __next__(self) -> Any:
        chunk = next(self._stream)
        self._listen(chunk)
        return chunk

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for chunk in self._stream:
            self._listen(chunk)
            yield chunk

    async def __anext__(self) -> Any:
        chunk = await anext(self._stream)
        self._listen(chunk)
        return chunk

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    async def __aenter__(self) -> "_Stream":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stream.close()

    def _listen(self, chunk: Any) -> None:
        try:
            for choice in chunk.choices:
                self._is_text = (
                    self._is_text
                    and choice.index == 0
                    and not getattr(choice.delta, "tool_calls", None)
                )
                self._pieces.append(choice.delta.content or "")
                if choice.finish_reason and self._is_text:
                    self._capturing.keep(chunk.model, "".join(self._pieces), choice.finish_reason)
        except Exception as error:
            # As above.
            self._is_text = False
            log.warning("a streamed answer was not captured: %r", error)


def _texts(messages: Sequence[Any]) -> tuple[Message, ...] | None:
    """The conversation as feedback says it; None when there is something in it that is no text."""
    turns: list[Message] = []
    for message in messages:
        said: Mapping[str, Any] = message if isinstance(message, Mapping) else message.model_dump()
        role: Any = "system" if said["role"] == "developer" else said["role"]
        content = _text(said.get("content"))
        if role not in get_args(Role) or content is None or said.get("tool_calls"):
            return None
        turns.append(Message(role=role, content=content))
    return tuple(turns)


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or any(part.get("type") != "text" for part in content):
        return None
    return "".join(part["text"] for part in content)
