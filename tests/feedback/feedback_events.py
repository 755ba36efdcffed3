"""A factory of feedback events."""

from typing import Any

from shared.events import FeedbackReceived


def make_feedback(
    feedback_type: str = "thumbs_up", output: str = "a good answer", **fields: Any
) -> FeedbackReceived:
    defaults = {
        "event_id": "e",
        "occurred_at": "2026-01-01T00:00:00Z",
        "model": "support",
        "input": "q",
        "output": output,
    }
    return FeedbackReceived.model_validate(defaults | {"feedback_type": feedback_type} | fields)
