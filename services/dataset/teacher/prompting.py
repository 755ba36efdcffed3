"""The request for examples about one chunk."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.dataset.sources.chunking import Chunk

REPLY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "examples": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "question": {"type": "string"},
                    "answer": {"type": "string"},
                    "quote": {"type": "string"},
                },
                "required": ["question", "answer", "quote"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["examples"],
    "additionalProperties": False,
}
"""JSON Schema of a reply."""

_INSTRUCTIONS = """\
You write questions and answers about a passage of a document, in the language of the passage.
- A question can be understood without the passage: it names what it asks about, and never says \
"the passage", "the text" or "the document".
- An answer is complete and says nothing that the passage does not say. Numbers, dates and names \
are written as there.
- "quote" is the part of the passage that the answer rests on, copied word for word.
- If the passage has no facts, there are no examples.
Reply with JSON only: {"examples": [{"question": "...", "answer": "...", "quote": "..."}]}"""


def messages_for(chunk: Chunk, examples: int) -> Sequence[Mapping[str, str]]:
    """Return the chat messages that ask for examples about a chunk."""
    place = " > ".join([chunk.title, *chunk.headings])
    request = f"Document: {place}\n\nPassage:\n{chunk.text}\n\nWrite up to {examples} examples."
    return (
        {"role": "system", "content": _INSTRUCTIONS},
        {"role": "user", "content": request},
    )
