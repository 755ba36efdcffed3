"""Responses of a chat completions server: one answer, complete or streamed."""

import json
from typing import Any

ANSWER = "It is on its way."
PIECES = ("It is ", "on its", " way.")
SERVED = "support:v3"


def completion(**changed: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER} | changed.pop("message", {})
    choices = [
        {"index": 0, "message": message, "finish_reason": changed.pop("finish_reason", "stop")}
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": SERVED,
        "choices": choices,
    } | changed


def chunks(**changed: Any) -> bytes:
    """Build the same answer as server-sent events, with a last chunk without choices, as with
    `include_usage`.
    """
    envelope = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": SERVED,
    }
    choices: list[list[dict[str, Any]]] = [
        [{"index": 0, "delta": {"content": piece}, "finish_reason": None}] for piece in PIECES
    ]
    choices += [[{"index": 0, "delta": {}, "finish_reason": "stop"} | changed], []]
    lines = [json.dumps(envelope | {"choices": some}) for some in choices]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


def answer(request: dict[str, Any], **changed: Any) -> tuple[str, bytes]:
    """Return content type and body of the response to a request."""
    if request.get("stream"):
        return "text/event-stream", chunks(**changed)
    return "application/json", json.dumps(completion(**changed)).encode()
