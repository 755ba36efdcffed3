"""Compare redaction with Presidio and detect-secrets on a labelled corpus: precision, recall and F1
of each kind.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.redaction.corpus import LabelledText, Span, corpus
from benchmarks.redaction.detectors import detect_by_libraries, detect_by_ratchet
from benchmarks.redaction.scores import Score, false_detections, missed_labels, score
from benchmarks.results import Result, report
from ratchet import console

Scores = Mapping[str, Score]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench-redaction")
    parser.add_argument("--libraries", type=Path, default=Path(".venv-detectors/bin/python"))
    parser.add_argument("--mistakes", action="store_true", help="print what redaction got wrong")
    options = parser.parse_args()
    texts = list(corpus())
    console.print_status(f"{len(texts)} texts")
    detected = detect_by_ratchet([text.text for text in texts])
    scores = {"ratchet": score(texts, detected)}
    for name, found in detect_by_libraries(
        options.libraries, [text.text for text in texts]
    ).items():
        scores[name] = score(texts, found)
    _print_scores(scores)
    if options.mistakes:
        _print_mistakes(texts, detected)
    report("redaction", _results(len(texts), scores))


def _peers(scores: Mapping[str, Scores], kind: str) -> list[str]:
    """Return the libraries that find a kind at all."""
    return [name for name in scores if name != "ratchet" and scores[name][kind].found]


def _print_scores(scores: Mapping[str, Scores]) -> None:
    console.print_table(
        ("kind", "detector", "labels", "precision", "recall", "F1"),
        [
            (
                kind,
                name,
                scores[name][kind].found + scores[name][kind].missed,
                f"{scores[name][kind].precision:.3f}",
                f"{scores[name][kind].recall:.3f}",
                f"{scores[name][kind].f1:.3f}",
            )
            for kind in scores["ratchet"]
            for name in ("ratchet", *_peers(scores, kind))
        ],
    )


def _print_mistakes(texts: Sequence[LabelledText], detected: Sequence[Sequence[Span]]) -> None:
    for text, found in zip(texts, detected, strict=True):
        for word, spans in (
            ("false", false_detections(text, found)),
            ("missed", missed_labels(text, found)),
        ):
            for span in spans:
                around = text.text[max(0, span.start - 20) : span.end + 10]
                value = text.text[span.start : span.end]
                console.print_text(f"{word} {span.kind} in {text.genre}: {value!r} in {around!r}")


def _results(count: int, scores: Mapping[str, Scores]) -> list[Result]:
    own = scores["ratchet"]
    results = [Result("texts", count, "texts")]
    results.append(Result("precision", min(each.precision for each in own.values()), "share"))
    for kind, each in own.items():
        for name in _peers(scores, kind):
            peer = scores[name][kind]
            results.append(Result(f"recall_{kind}_{name}", each.recall, "share", peer.recall))
            results.append(Result(f"f1_{kind}_{name}", each.f1, "share", peer.f1))
    for name in scores:
        shared = [kind for kind in own if name in _peers(scores, kind)]
        if shared:
            worst = min(own[kind].f1 / scores[name][kind].f1 for kind in shared)
            results.append(Result(f"f1_ratio_{name}", worst, "ratio"))
    return results


if __name__ == "__main__":
    main()
