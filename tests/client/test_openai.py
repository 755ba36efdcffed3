"""Answers of the real client library are captured for every kind of call, without any change for
the application.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI

from ratchet_client import InvalidFeedback, capture
from ratchet_client.event import FeedbackFields, build_record
from ratchet_client.generations import Generation, Generations
from tests.support.completions import ANSWER, PIECES, answer

MESSAGES: Any = [
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "Where is it?"}]},
]
STORED_MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Where is it?"},
]


class Capture:
    """Captured answers, and the events that a client would send about them."""

    def __init__(self) -> None:
        self.generations = Generations(3, 1000)

    def keep(self, response_id: str, generation: Generation) -> None:
        self.generations.keep(response_id, generation)

    def event_of(self, **fields: Any) -> dict[str, Any]:
        completed = self.generations.fill_in(cast(FeedbackFields, fields))
        event: dict[str, Any] = json.loads(
            build_record(completed, datetime(2026, 1, 1, tzinfo=UTC)).value
        )
        return event


@pytest.fixture
def captured() -> Capture:
    return Capture()


def transport(**changed: Any) -> httpx.MockTransport:
    def respond(request: httpx.Request) -> httpx.Response:
        content_type, body = answer(json.loads(request.content), **changed)
        return httpx.Response(200, headers={"Content-Type": content_type}, content=body)

    return httpx.MockTransport(respond)


@contextmanager
def capturing_client(
    captured: Capture, respond: httpx.MockTransport, model: str | None = None
) -> Iterator[OpenAI]:
    with OpenAI(
        api_key="k",
        base_url="http://h/v1",
        max_retries=0,
        http_client=httpx.Client(transport=respond),
    ) as client:
        yield capture(client, captured, model=model)


def ask_whole(client: OpenAI) -> tuple[str, str]:
    completion = client.chat.completions.create(model="support", messages=MESSAGES)
    assert completion.choices[0].message.content is not None
    return completion.ratchet_response_id, completion.choices[0].message.content  # type: ignore[attr-defined]  # added by capture


def ask_iterating(client: OpenAI) -> tuple[str, str]:
    stream = client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    return stream.ratchet_response_id, "".join(pieces)  # type: ignore[attr-defined]


def ask_step_by_step(client: OpenAI) -> tuple[str, str]:
    with client.chat.completions.create(model="support", messages=MESSAGES, stream=True) as stream:
        assert stream.response.status_code == 200
        pieces = [next(stream).choices[0].delta.content or "" for _ in (*PIECES, "end")]
    return stream.ratchet_response_id, "".join(pieces)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ask", [ask_whole, ask_iterating, ask_step_by_step])
def test_feedback_may_refer_to_an_answer_by_id(
    captured: Capture, ask: Callable[[OpenAI], tuple[str, str]]
) -> None:
    with capturing_client(captured, transport()) as client:
        response_id, text = ask(client)
        another, _ = ask(client)
    assert text == ANSWER
    assert response_id != another, "although the server gave both the same id"
    event = captured.event_of(
        response_id=response_id, feedback_type="thumbs_up", user_id="ada", tags={"channel": "web"}
    )
    assert (event["model"], event["model_version"], event["input"], event["output"]) == (
        "support",
        "v3",
        STORED_MESSAGES,
        ANSWER,
    )
    assert (event["response_id"], event["user_id"]) == (response_id, "ada")
    assert event["tags"] == {"channel": "web", "finish_reason": "stop"}
    assert (
        captured.event_of(
            response_id=response_id, feedback_type="accepted", output="what was shown"
        )["output"]
        == "what was shown"
    )
    assert (
        captured.event_of(response_id=response_id, feedback_type="accepted", output=None)["output"]
        == ANSWER
    )


async def test_asynchronous_clients_are_captured(captured: Capture) -> None:
    http = httpx.AsyncClient(transport=transport())
    async with AsyncOpenAI(api_key="k", base_url="http://h/v1", http_client=http) as client:
        create = capture(client, captured, model="tickets").chat.completions.create
        completion = await create(model="support", messages=MESSAGES)
        stream = await create(model="support", messages=MESSAGES, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        async with await create(model="support", messages=MESSAGES, stream=True) as abandoned:
            await anext(abandoned)
    assert "".join(pieces) == ANSWER
    for response in (completion, stream):
        response_id = response.ratchet_response_id  # type: ignore[union-attr]
        event = captured.event_of(response_id=response_id, feedback_type="accepted")
        assert (event["model"], event["output"]) == ("tickets", ANSWER)
    with pytest.raises(InvalidFeedback, match="response_id"):
        captured.event_of(response_id=abandoned.ratchet_response_id, feedback_type="accepted")  # type: ignore[attr-defined]


IMAGE: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
CALL = {
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
}


@pytest.mark.parametrize(
    ("messages", "changed"),
    [
        (IMAGE, {}),
        (MESSAGES, {"message": CALL}),
        (MESSAGES, {"message": {"content": None}}),
        (MESSAGES, {"choices": []}),
        (
            [
                *MESSAGES,
                {"role": "assistant", "content": None, **CALL},
                {"role": "tool", "content": "x", "tool_call_id": "1"},
            ],
            {},
        ),
    ],
)
def test_only_text_to_text_answers_are_captured(
    captured: Capture, messages: Any, changed: dict[str, Any]
) -> None:
    with capturing_client(captured, transport(**changed)) as client:
        completion = client.chat.completions.create(model="support", messages=messages)
    assert completion.id == "chatcmpl-1"
    assert len(captured.generations) == 0


def test_a_stream_of_several_choices_is_not_captured(captured: Capture) -> None:
    with capturing_client(captured, transport(index=1)) as client:
        assert (
            len(
                list(
                    client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
                )
            )
            == len(PIECES) + 2
        )
    assert len(captured.generations) == 0


def test_a_server_error_reaches_the_application(captured: Capture) -> None:
    with (
        capturing_client(captured, httpx.MockTransport(lambda _: httpx.Response(503))) as client,
        pytest.raises(APIStatusError),
    ):
        client.chat.completions.create(model="support", messages=MESSAGES)
    assert len(captured.generations) == 0


@pytest.mark.parametrize(
    ("served", "version"),
    [("support:latest", None), ("support", None), ("support:champion", None), ("support:v7", "v7")],
)
def test_the_version_comes_from_the_served_name(
    captured: Capture, served: str, version: str | None
) -> None:
    with capturing_client(captured, transport(model=served)) as client:
        response_id, _ = ask_whole(client)
    event = captured.event_of(response_id=response_id, feedback_type="accepted")
    assert (event["model"], event.get("model_version")) == ("support", version)


def test_the_oldest_answers_are_evicted_first() -> None:
    generations = Generations(3, 100)
    for number, size in enumerate([10, 10, 10, 10, 65, 200]):
        generations.keep(
            str(number),
            Generation("m", None, ({"role": "user", "content": "q" * 5},), "a" * (size - 5), None),
        )
        kept_ids = [
            str(kept_id) for kept_id in range(number + 1) if generations._kept.get(str(kept_id))
        ]
        assert (
            kept_ids
            == [["0"], ["0", "1"], ["0", "1", "2"], ["1", "2", "3"], ["2", "3", "4"], []][number]
        )
    generations.keep("a", Generation("m", None, (), "a" * 60, None))
    generations.keep("a", Generation("m", None, (), "b" * 60, None))
    assert len(generations) == 1, "the same id replaces the previous answer"
