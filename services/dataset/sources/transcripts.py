"""Transcripts: WebVTT, SubRip, and text in lines of `Speaker: words`. Speakers stay apart."""

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.dataset.sources.document import SourceBlock, SourceDocument, SourceSpan, joined_lines

_CUE_TIMES = re.compile(
    r"\s*((?:\d{1,3}:)?\d{1,2}:\d{2})[.,]\d{1,3}\s*-->\s*((?:\d{1,3}:)?\d\d:\d\d)"
)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]{1,80})>")
_TAG = re.compile(r"</?[a-zA-Z0-9][^<>]{0,200}>|<>")
_SPEAKER = re.compile(
    r"(?:[\[(]?(?P<time>(?:\d{1,2}:)?\d{1,2}:\d{2})[\])]?\s*(?:-\s*)?)?"
    r"(?P<name>[^\W\d_][\w.'’ -]{0,40}?)\s*:\s+(?P<words>\S.*)"
)
_MAX_TURN = 4_000
"""Characters after which a turn is divided at the next cue or line."""
_LEAST_TURNS = 4
_LEAST_SHARE = 0.6
_MAX_SPEAKERS = 20


@dataclass(frozen=True, slots=True)
class _Words:
    """Words of one speaker, named or not."""

    speaker: str | None
    text: str
    span: SourceSpan


def read_captions(text: str) -> SourceDocument:
    """Read the cues of WebVTT or SubRip. Consecutive cues of one speaker are one turn, with its
    times in seconds; a line that the next cue repeats counts once.
    """
    return SourceDocument(title="", blocks=tuple(_turns(_cues(text))))


def is_transcript(text: str) -> bool:
    """True if most lines of a text are `Speaker: words`, by few speakers who speak repeatedly."""
    lines = [line for line in text.splitlines() if line.strip()]
    names = Counter(match["name"] for line in lines if (match := _SPEAKER.match(line.strip())))
    turns = sum(count for count in names.values() if count > 1)
    return (
        turns >= _LEAST_TURNS
        and turns >= _LEAST_SHARE * len(lines)
        and 2 <= len(names) <= _MAX_SPEAKERS
    )


def read_transcript(text: str) -> SourceDocument:
    """Read lines of `Speaker: words`. A line without a speaker continues the turn before it."""
    return SourceDocument(title="", blocks=tuple(_turns(_spoken_lines(text))))


def _cues(text: str) -> Iterator[_Words]:
    previous = ""
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        place = next((at for at, line in enumerate(lines[:2]) if "-->" in line), None)
        times = None if place is None else _CUE_TIMES.match(lines[place])
        if place is None or times is None:
            continue  # the file's header, a note, a style, or damaged
        span = SourceSpan(unit="second", first=_seconds(times[1]), last=_seconds(times[2]))
        speaker: str | None = None
        words: list[str] = []
        for line in lines[place + 1 :]:
            if voice := _VOICE.search(line):
                if words:
                    yield _Words(speaker, " ".join(words), span)
                    words = []
                speaker = joined_lines(html.unescape(voice[1]))
            spoken = joined_lines(html.unescape(_TAG.sub("", line)))
            if named := _SPEAKER.match(spoken.removeprefix("- ")):
                if words:
                    yield _Words(speaker, " ".join(words), span)
                    words = []
                speaker, spoken = named["name"].strip(), named["words"]
            if spoken and spoken != previous:
                words.append(spoken)
                previous = spoken
        if words:
            yield _Words(speaker, " ".join(words), span)


def _spoken_lines(text: str) -> Iterator[_Words]:
    speaker: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not (line := line.strip()):
            continue
        if named := _SPEAKER.match(line):
            speaker, line = named["name"].strip(), named["words"]
        yield _Words(speaker, line, SourceSpan(unit="line", first=number, last=number))


def _turns(parts: Iterable[_Words]) -> Iterator[SourceBlock]:
    """Join consecutive parts of one speaker."""
    current: _Words | None = None
    for part in parts:
        if (
            current is not None
            and part.speaker == current.speaker
            and len(current.text) < _MAX_TURN
        ):
            current = _Words(
                current.speaker, f"{current.text} {part.text}", current.span.until(part.span)
            )
            continue
        if current is not None:
            yield _turn(current)
        current = part
    if current is not None:
        yield _turn(current)


def _turn(words: _Words) -> SourceBlock:
    return SourceBlock(kind="turn", text=words.text, span=words.span, name=words.speaker)


def _seconds(time: str) -> int:
    seconds = 0
    for part in time.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds
