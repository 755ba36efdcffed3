"""The client of the chat completions API, with a real server."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services.dataset.teacher.chat_api import ATTEMPTS, ChatApi
from services.dataset.teacher.reply_cache import TeacherReply
from services.dataset.teacher.settings import TeacherSettings
from shared.errors import Misconfigured, Unavailable
from tests.support.teacher_server import HttpReply, Request, completion, teacher_server

REQUEST = {"model": "large", "messages": [{"role": "user", "content": "Please. " * 10}]}


def ask(
    url: str,
    times: int = 1,
    key: str | None = None,
    pauses: list[float] | None = None,
    **fields: Any,
) -> list[TeacherReply]:
    """Ask a server for some replies, one after another, without pauses; they are noted."""

    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    async def replies() -> list[TeacherReply]:
        settings = TeacherSettings(url=url, model="large", **fields)
        async with ChatApi(settings, key, sleep) as api:
            return [await api.ask(REQUEST) for _ in range(times)]

    return asyncio.run(replies())


def in_turn(*replies: HttpReply) -> Callable[[Request, int], HttpReply]:
    """Answer with these replies in turn, then with the last one."""
    return lambda request, number: replies[min(number, len(replies) - 1)]


def test_a_request_has_the_schema_and_the_key() -> None:
    with teacher_server(in_turn(completion("yes"))) as server:
        [reply] = ask(server.url, key="secret")
    assert reply == TeacherReply(text="yes", tokens=100)
    [request] = server.requests
    assert request["model"] == "large"
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["examples"]
    assert server.keys == ["Bearer secret"]


@pytest.mark.parametrize(
    "broken",
    [
        HttpReply({"error": "busy"}, 429, {"Retry-After": "0"}),
        HttpReply({"error": "busy"}, 429, {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}),
        HttpReply({"error": "loading"}, 503),
        HttpReply(b"<html>", 200),
        HttpReply({"choices": []}, 200),
        HttpReply({"error": "no choices"}, 200),
        HttpReply([], 200),
    ],
)
def test_failures_that_pass_are_repeated(broken: HttpReply) -> None:
    with teacher_server(in_turn(broken, broken, completion("yes"))) as server:
        [reply] = ask(server.url)
    assert reply.text == "yes"
    assert len(server.requests) == 3


def test_pauses_grow_and_follow_the_server() -> None:
    busy = [HttpReply({}, 429, {"Retry-After": wait}) for wait in ("50", "7200", "0", "-5")]
    pauses: list[float] = []
    with teacher_server(in_turn(*busy, completion("yes"))) as server:
        ask(server.url, pauses=pauses)
    assert pauses[:2] == [50, 60]
    assert all(0 <= pause <= 16 for pause in pauses[2:])
    assert len(pauses) == 4


def test_a_server_without_schemas_is_asked_without_one() -> None:
    def answer(request: Request, number: int) -> HttpReply:
        if "response_format" in request:
            return HttpReply({"error": "response_format is not supported"}, 400)
        return completion("yes")

    with teacher_server(answer) as server:
        assert [reply.text for reply in ask(server.url, times=2)] == ["yes", "yes"]
    assert ["response_format" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "reasoning_content": "{}"}, "{}"),
        ({"content": " ", "reasoning": "{}"}, "{}"),
        ({"content": "a", "reasoning_content": "b"}, "a"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": None}, ""),
        ({"content": "a\ud800"}, "a?"),
    ],
)
def test_answers_of_reasoning_models(message: dict[str, Any], text: str) -> None:
    with teacher_server(in_turn(completion(**message))) as server:
        assert ask(server.url)[0].text == text


def test_tokens_are_estimated_for_a_server_that_counts_none() -> None:
    body = {"choices": [{"message": {"content": "x" * 40}}], "usage": None}
    with teacher_server(in_turn(HttpReply(body))) as server:
        assert ask(server.url)[0].tokens == (80 + 40) // 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_rejected_requests_are_not_repeated(status: int) -> None:
    rejection = in_turn(HttpReply({"error": "model not found"}, status))
    with teacher_server(rejection) as server, pytest.raises(Misconfigured) as raised:
        ask(server.url, key="secret")
    assert f"status {status}" in str(raised.value)
    assert "model not found" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert len(server.requests) == 1


def test_a_request_that_is_wrong_without_a_schema_is_rejected() -> None:
    rejection = in_turn(HttpReply({"error": "no model"}, 400))
    with teacher_server(rejection) as server, pytest.raises(Misconfigured, match="status 400"):
        ask(server.url)
    assert len(server.requests) == 2


def test_a_server_that_never_finishes_is_given_up() -> None:
    with teacher_server(in_turn(HttpReply(b"", stall=True))) as server:
        with pytest.raises(Unavailable, match="does not answer"):
            ask(server.url, timeout_seconds=0.1)
        assert len(server.requests) == ATTEMPTS


def test_a_reply_without_end_is_refused() -> None:
    large = in_turn(HttpReply(b" " * (9 << 20)))
    with teacher_server(large) as server, pytest.raises(Misconfigured, match="more than 8 MiB"):
        ask(server.url)


def test_no_server_is_reported_with_its_address() -> None:
    with pytest.raises(Unavailable, match=r"the teacher at http://127\.0\.0\.1:9/v1 does not"):
        ask("http://127.0.0.1:9/v1")
    with pytest.raises(Misconfigured, match=r"teacher\.url of the recipe is wrong"):
        ask("http://[::1/v1")
