"""Report of a build from documents, for people."""

from collections.abc import Sequence
from typing import Any

from ratchet import console
from ratchet.dataset.importing import show_manifest
from shared.storage.snapshots import EXAMPLE_KINDS

_MAX_TEXT = 240
_MAX_NAMED = 10


def show_build(report: dict[str, Any], model: str, *, dry_run: bool) -> None:
    """Print the counts of each step, the files without text, some examples, and the dataset."""
    console.print_table(("", "number"), _counts(report))
    _show_places("files left out", report["left_out_files"], sum(report["files_left_out"].values()))
    _show_places("places without text", report["first_places"], report["places_without_text"])
    for sample in report["samples"]:
        side = ", held out" if sample["held_out"] else ""
        source = f" · {sample['source']}" if sample["source"] else ""
        console.print_text(
            f"\n{sample['origin']}{side}{source}\n"
            f"  Q: {_shortened(sample['question'])}\n  A: {_shortened(sample['answer'])}"
        )
    held_out = report["held_out_documents"]
    if held_out:
        more = f" and {len(held_out) - _MAX_NAMED} more" if len(held_out) > _MAX_NAMED else ""
        console.print_text(f"\ndocuments held out: {', '.join(held_out[:_MAX_NAMED])}{more}")
    elif report["documents"]:
        console.print_text("\nno document is held out")
    show_manifest(report, model, dry_run=dry_run)


def _counts(report: dict[str, Any]) -> list[Sequence[object]]:
    """Return the rows of the counts, in the order of the steps."""
    rows: list[Sequence[object]] = [("documents read", report["documents"])]
    rows += [(f"files left out: {why}", n) for why, n in report["files_left_out"].items()]
    rows += [
        ("places without text", report["places_without_text"]),
        ("repeated blocks removed", report["boilerplate_blocks"]),
        ("chunks found", report["chunks_found"]),
        ("chunks used", report["chunks"]),
    ]
    if teacher := report["teacher"]:
        rows += [
            ("teacher: calls", teacher["calls"]),
            ("teacher: calls from the cache", teacher["cached"]),
            ("teacher: calls still to make", teacher["missing"]),
            ("teacher: chunks over the budget", teacher["over_budget"]),
            ("teacher: tokens", teacher["tokens"]),
            ("teacher: replies without JSON", teacher["unusable"]),
        ]
        rows += [(f"teacher: not in the source: {k}", n) for k, n in teacher["ungrounded"].items()]
    rows += [(f"examples found: {origin}", n) for origin, n in report["candidates"].items()]
    rows += [(f"filtered: {name}", n) for name, n in report["filtered"].items()]
    rows += [(f"dropped: {reason}", n) for reason, n in report["dropped"].items()]
    rows += [(f"redacted: {kind}", n) for kind, n in report["redacted"].items()]
    kinds = (kind for kind in EXAMPLE_KINDS if kind in ("training", "held_out"))
    rows += [(kind.replace("_", " "), report["examples"][kind]) for kind in kinds]
    rows.append(("tokens of an epoch, about", report["training_tokens"]))
    return rows


def _show_places(title: str, places: Sequence[dict[str, str]], total: int) -> None:
    if not places:
        return
    if total > len(places):
        title = f"The first {len(places)} of {total} {title}"
    console.print_table(("file", "reason"), [(p["name"], p["reason"]) for p in places], title=title)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 1]}…"
