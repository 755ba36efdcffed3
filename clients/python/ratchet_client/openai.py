"""Capture of answers from an OpenAI-compatible client, so that feedback can refer to them by id.

    client = capture(OpenAI(base_url=...), ratchet)
    answer = client.chat.completions.create(model="support", messages=[...])
    ratchet.record_feedback(response_id=answer.ratchet_response_id, feedback_type="thumbs_up")

Each answer, streamed or not, gets an id from this module, because servers' ids are not always
unique.
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
"""Tags of a served model's name that are not a version."""

log = logging.getLogger("ratchet_client")


class GenerationStore(Protocol):
    """Store of generations: a Client or an AsyncClient."""

    def keep(self, response_id: str, generation: Generation) -> None: ...


def capture(client: C, ratchet: GenerationStore, *, model: str | None = None) -> C:
    """Capture prompts and answers of `client.chat.completions.create`, plain, asynchronous or
    streaming; return the same client.

    `model` is the model's name in Ratchet, if it differs from the part before the colon of the
    served name. Only complete text-to-text answers are captured: no images, no tool calls, no
    multiple choices, no aborted streams. A failure to capture never affects the answer. Copies of
    the client (`with_options`) are not captured.
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
    """One request and its answer."""

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
            # The application gets its answer, whatever its shape.
            log.warning("answer not captured: %r", error)
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
    """Wrapper of a stream that captures its chunks."""

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
            # Capture must not affect the stream.
            self._is_text = False
            log.warning("streamed answer not captured: %r", error)


def _texts(messages: Sequence[Any]) -> tuple[Message, ...] | None:
    """Convert a conversation to feedback's messages; None when it has non-text content."""
    turns: list[Message] = []
    for message in messages:
        fields: Mapping[str, Any] = (
            message if isinstance(message, Mapping) else message.model_dump()
        )
        role: Any = "system" if fields["role"] == "developer" else fields["role"]
        content = _text(fields.get("content"))
        if role not in get_args(Role) or content is None or fields.get("tool_calls"):
            return None
        turns.append(Message(role=role, content=content))
    return tuple(turns)


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or any(part.get("type") != "text" for part in content):
        return None
    return "".join(part["text"] for part in content)
