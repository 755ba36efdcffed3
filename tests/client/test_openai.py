"""Answers that the real client library gives are kept, whichever way they are asked for; the
application sees what it would see anyway.
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

ASKED: Any = [
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "Where is it?"}]},
]
KNOWN = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Where is it?"}]


class Kept:
    """Stand-in for a Client: collects the answers to keep and the feedback to send."""

    def __init__(self) -> None:
        self.generations = Generations(3, 1000)

    def keep(self, response_id: str, generation: Generation) -> None:
        self.generations.keep(response_id, generation)

    def said(self, **said: Any) -> dict[str, Any]:
        completed = self.generations.fill_in(cast(FeedbackFields, said))
        event: dict[str, Any] = json.loads(
            build_record(completed, datetime(2026, 1, 1, tzinfo=UTC)).value
        )
        return event


@pytest.fixture
def kept() -> Kept:
    return Kept()


def transport(**changed: Any) -> httpx.MockTransport:
    def respond(request: httpx.Request) -> httpx.Response:
        content_type, body = answer(json.loads(request.content), **changed)
        return httpx.Response(200, headers={"Content-Type": content_type}, content=body)

    return httpx.MockTransport(respond)


@contextmanager
def asking(kept: Kept, respond: httpx.MockTransport, model: str | None = None) -> Iterator[OpenAI]:
    with OpenAI(
        api_key="k",
        base_url="http://h/v1",
        max_retries=0,
        http_client=httpx.Client(transport=respond),
    ) as client:
        yield capture(client, kept, model=model)


def whole(client: OpenAI) -> tuple[str, str]:
    said = client.chat.completions.create(model="support", messages=ASKED)
    assert said.choices[0].message.content is not None
    return said.ratchet_response_id, said.choices[0].message.content  # type: ignore[attr-defined]  # what capture adds


def iterated(client: OpenAI) -> tuple[str, str]:
    stream = client.chat.completions.create(model="support", messages=ASKED, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    return stream.ratchet_response_id, "".join(pieces)  # type: ignore[attr-defined]


def step_by_step(client: OpenAI) -> tuple[str, str]:
    with client.chat.completions.create(model="support", messages=ASKED, stream=True) as stream:
        assert stream.response.status_code == 200
        pieces = [next(stream).choices[0].delta.content or "" for _ in (*PIECES, "end")]
    return stream.ratchet_response_id, "".join(pieces)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ask", [whole, iterated, step_by_step])
def test_feedback_may_refer_to_an_answer_by_id(
    kept: Kept, ask: Callable[[OpenAI], tuple[str, str]]
) -> None:
    with asking(kept, transport()) as client:
        response_id, text = ask(client)
        another, _ = ask(client)
    assert text == ANSWER
    assert response_id != another, "though the server gave both the same id"
    event = kept.said(
        response_id=response_id, feedback_type="thumbs_up", user_id="ada", tags={"channel": "web"}
    )
    assert (event["model"], event["model_version"], event["input"], event["output"]) == (
        "support",
        "v3",
        KNOWN,
        ANSWER,
    )
    assert (event["response_id"], event["user_id"]) == (response_id, "ada")
    assert event["tags"] == {"channel": "web", "finish_reason": "stop"}
    assert (
        kept.said(response_id=response_id, feedback_type="accepted", output="what was shown")[
            "output"
        ]
        == "what was shown"
    )
    assert (
        kept.said(response_id=response_id, feedback_type="accepted", output=None)["output"]
        == ANSWER
    )


async def test_asynchronous_clients_are_captured(kept: Kept) -> None:
    http = httpx.AsyncClient(transport=transport())
    async with AsyncOpenAI(api_key="k", base_url="http://h/v1", http_client=http) as client:
        create = capture(client, kept, model="tickets").chat.completions.create
        said = await create(model="support", messages=ASKED)
        stream = await create(model="support", messages=ASKED, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        async with await create(model="support", messages=ASKED, stream=True) as given_up:
            await anext(given_up)
    assert "".join(pieces) == ANSWER
    for one in (said, stream):
        event = kept.said(response_id=one.ratchet_response_id, feedback_type="accepted")  # type: ignore[union-attr]
        assert (event["model"], event["output"]) == ("tickets", ANSWER)
    with pytest.raises(InvalidFeedback, match="response_id"):
        kept.said(response_id=given_up.ratchet_response_id, feedback_type="accepted")  # type: ignore[attr-defined]


IMAGE: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
CALL = {
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
}


@pytest.mark.parametrize(
    ("messages", "changed"),
    [
        (IMAGE, {}),
        (ASKED, {"message": CALL}),
        (ASKED, {"message": {"content": None}}),
        (ASKED, {"choices": []}),
        (
            [
                *ASKED,
                {"role": "assistant", "content": None, **CALL},
                {"role": "tool", "content": "x", "tool_call_id": "1"},
            ],
            {},
        ),
    ],
)
def test_only_text_to_text_answers_are_captured(
    kept: Kept, messages: Any, changed: dict[str, Any]
) -> None:
    with asking(kept, transport(**changed)) as client:
        said = client.chat.completions.create(model="support", messages=messages)
    assert said.id == "chatcmpl-1"
    assert len(kept.generations) == 0


def test_a_stream_of_several_choices_is_not_captured(kept: Kept) -> None:
    with asking(kept, transport(index=1)) as client:
        assert (
            len(list(client.chat.completions.create(model="support", messages=ASKED, stream=True)))
            == len(PIECES) + 2
        )
    assert len(kept.generations) == 0


def test_a_server_error_reaches_the_application(kept: Kept) -> None:
    with (
        asking(kept, httpx.MockTransport(lambda _: httpx.Response(503))) as client,
        pytest.raises(APIStatusError),
    ):
        client.chat.completions.create(model="support", messages=ASKED)
    assert len(kept.generations) == 0


@pytest.mark.parametrize(
    ("served", "version"),
    [("support:latest", None), ("support", None), ("support:champion", None), ("support:v7", "v7")],
)
def test_the_version_comes_from_the_served_name(
    kept: Kept, served: str, version: str | None
) -> None:
    with asking(kept, transport(model=served)) as client:
        response_id, _ = whole(client)
    event = kept.said(response_id=response_id, feedback_type="accepted")
    assert (event["model"], event.get("model_version")) == ("support", version)


def test_the_oldest_answers_are_evicted_first() -> None:
    generations = Generations(3, 100)
    for number, size in enumerate([10, 10, 10, 10, 65, 200]):
        generations.keep(
            str(number),
            Generation("m", None, ({"role": "user", "content": "q" * 5},), "a" * (size - 5), None),
        )
        held = [str(one) for one in range(number + 1) if generations._kept.get(str(one))]
        assert (
            held
            == [["0"], ["0", "1"], ["0", "1", "2"], ["1", "2", "3"], ["2", "3", "4"], []][number]
        )
    generations.keep("a", Generation("m", None, (), "a" * 60, None))
    generations.keep("a", Generation("m", None, (), "b" * 60, None))
    assert len(generations) == 1, "the same id again takes the place of the one before"
