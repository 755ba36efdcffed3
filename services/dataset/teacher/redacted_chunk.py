"""Chunks as a teacher sees them: without the personal data that the model file redacts."""

from dataclasses import replace

from services.dataset.sources.chunking import Chunk
from shared.redaction.redactor import Redactor


def redacted_chunk(chunk: Chunk, redactor: Redactor) -> Chunk:
    """Replace personal data and secrets in all texts of a chunk. Its name and places stay."""
    names = [block.name or "" for block in chunk.blocks]
    texts = [block.text for block in chunk.blocks]
    redacted = redactor.redact_texts([chunk.title, *chunk.headings, *names, *texts])
    if not redacted.counts:
        return chunk
    remaining = iter(redacted.texts)
    title = next(remaining)
    headings = tuple(next(remaining) for _ in chunk.headings)
    names = [next(remaining) for _ in names]
    blocks = tuple(
        block.model_copy(update={"text": next(remaining), "name": name or None, "rows": ()})
        for block, name in zip(chunk.blocks, names, strict=True)
    )
    return replace(chunk, title=title, headings=headings, blocks=blocks)
