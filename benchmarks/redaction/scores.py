"""Precision, recall and F1 of a detector on the labelled corpus, by kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.redaction.corpus import LabelledText, Span

COVERED = 0.8
"""Share of the characters of a label that one detection must cover."""


@dataclass(slots=True)
class Score:
    """Counts of one kind: labels that were found and missed, and detections without a label."""

    found: int = 0
    missed: int = 0
    false: int = 0

    @property
    def recall(self) -> float:
        return self.found / (self.found + self.missed)

    @property
    def precision(self) -> float:
        detections = self.found + self.false
        return self.found / detections if detections else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.found / (2 * self.found + self.missed + self.false)


def score(corpus: Sequence[LabelledText], detected: Iterable[Sequence[Span]]) -> dict[str, Score]:
    """Return the score of each kind that the corpus has."""
    scores = {kind: Score() for kind in sorted({s.kind for text in corpus for s in text.spans})}
    for text, detections in zip(corpus, detected, strict=True):
        missed = missed_labels(text, detections)
        for label in text.spans:
            scores[label.kind].found += label not in missed
        for label in missed:
            scores[label.kind].missed += 1
        for each in false_detections(text, detections):
            scores[each.kind].false += 1
    return scores


def missed_labels(text: LabelledText, detections: Sequence[Span]) -> list[Span]:
    """Return the labels that no detection of their kind covers."""
    return [
        label
        for label in text.spans
        if all(_overlap(label, each) < COVERED * _length(label) for each in detections)
    ]


def false_detections(text: LabelledText, detections: Sequence[Span]) -> list[Span]:
    """Return the detections of which more than half is outside of every label of their kind."""
    return [
        each
        for each in detections
        if all(2 * _overlap(label, each) < _length(each) for label in text.spans)
    ]


def _length(span: Span) -> int:
    return span.end - span.start


def _overlap(label: Span, detection: Span) -> int:
    if label.kind != detection.kind:
        return 0
    return max(0, min(label.end, detection.end) - max(label.start, detection.start))
