"""Examples from the structure of documents, without a teacher: answers are text of the document.

question     a heading that is a question, and the text below it
section      a heading, and the text below it
definition   a term of a list of definitions, and its definition
table        a cell, asked for by its column and the first cell of its row
transcript   a question at the end of a turn, and the turn of the next speaker
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from services.dataset.building.candidate import Candidate, Origin
from services.dataset.building.recipe import QuestionWording
from services.dataset.building.slots import fill
from services.dataset.sources.chunking import Chunk
from services.dataset.sources.document import SourceBlock

_QUESTION_MARKS = ("?", "？", "؟")
_LAST_QUESTION = re.compile(r"(?:.*[.!?。！？]\s+)?(.*\S)\s*$", re.DOTALL)
_MAX_QUESTION = 400
_MAX_COLUMNS = 20
_BLANK_CELLS = ("", "-", "–", "—", "n/a")


def extract(chunks: Iterable[Chunk], wording: QuestionWording) -> Iterator[Candidate]:
    """Yield the examples of chunks. The chunks of a document are in order, one after another."""
    for _, group in groupby(chunks, key=lambda chunk: chunk.document):
        document = list(group)
        repeated = _repeated_headings(document)
        for headings, section in groupby(document, key=lambda chunk: chunk.headings):
            heading = _heading(headings, repeated)
            parts = list(section)
            yield from _sections(parts, heading, wording)
            for chunk in parts:
                for block in chunk.blocks:
                    yield from _definition(chunk, block, heading, wording)
                    yield from _table(chunk, block, heading, wording)
                yield from _answers(chunk)


def is_question(text: str) -> bool:
    """True if a text ends with a question mark."""
    return text.rstrip().endswith(_QUESTION_MARKS)


def _repeated_headings(chunks: Iterable[Chunk]) -> frozenset[str]:
    """Return the headings that several sections of a document have."""
    paths = {chunk.headings for chunk in chunks if chunk.headings}
    counts = Counter(path[-1] for path in paths)
    return frozenset(heading for heading, count in counts.items() if count > 1)


def _heading(headings: Sequence[str], repeated: frozenset[str]) -> str:
    if not headings:
        return ""
    return " / ".join(headings) if headings[-1] in repeated else headings[-1]


def _sections(
    parts: Sequence[Chunk], heading: str, wording: QuestionWording
) -> Iterator[Candidate]:
    """Yield an example for each part of a section. One without a heading has none: nothing in the
    document asks for it.
    """
    if not heading or any(block.kind == "turn" for part in parts for block in part.blocks):
        return
    if is_question(heading) and len(parts) == 1:
        only = parts[0]
        place = f"{only.document}, {only.span}"
        yield Candidate("question", heading, only.text, only.document, place)
        return
    for number, part in enumerate(parts, start=1):
        slots = {
            "title": part.title,
            "heading": heading,
            "number": str(number),
            "parts": str(len(parts)),
        }
        wordings = wording.section if len(parts) == 1 else wording.part
        yield from _candidates("section", part, wordings, slots, part.text)


def _definition(
    chunk: Chunk, block: SourceBlock, heading: str, wording: QuestionWording
) -> Iterator[Candidate]:
    if block.kind != "definition" or block.name is None:
        return
    slots = {"title": chunk.title, "heading": heading, "term": block.name}
    yield from _candidates("definition", chunk, wording.definition, slots, block.text, block)


def _table(
    chunk: Chunk, block: SourceBlock, heading: str, wording: QuestionWording
) -> Iterator[Candidate]:
    if block.kind != "table" or not block.has_header or len(block.rows[0]) > _MAX_COLUMNS:
        return
    header, *rows = block.rows
    for row in rows:
        for column, cell in zip(header[1:], row[1:], strict=False):
            if row[0] and column and cell.lower() not in _BLANK_CELLS:
                slots = {
                    "title": chunk.title,
                    "heading": heading,
                    "column": column,
                    "row": row[0],
                }
                yield from _candidates("table", chunk, wording.table, slots, cell, block)


def _answers(chunk: Chunk) -> Iterator[Candidate]:
    for turn, reply in pairwise(chunk.blocks):
        if (
            turn.kind == reply.kind == "turn"
            and turn.name != reply.name
            and is_question(turn.text)
            and not is_question(reply.text)
            and (last := _LAST_QUESTION.match(turn.text[-2 * _MAX_QUESTION :]))
            and len(last[1]) <= _MAX_QUESTION
        ):
            yield Candidate(
                "transcript",
                last[1],
                reply.text,
                chunk.document,
                f"{chunk.document}, {turn.span.until(reply.span)}",
            )


def _candidates(
    origin: Origin,
    chunk: Chunk,
    wordings: Sequence[str],
    slots: Mapping[str, str],
    answer: str,
    block: SourceBlock | None = None,
) -> Iterator[Candidate]:
    """Yield the candidate of a fact, with the questions of all wordings; none without wordings."""
    questions = dict.fromkeys(fill(wording, slots.__getitem__) for wording in wordings)
    if not questions:
        return
    first, *rewordings = questions
    span = chunk.span if block is None else block.span
    place = f"{chunk.document}, {span}"
    yield Candidate(origin, first, answer, chunk.document, place, tuple(rewordings))
