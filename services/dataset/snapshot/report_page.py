"""The report of a batch as a page of Markdown: who contributed, what they said, what was left out
and why, and how it looks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from textwrap import indent

from pydantic import JsonValue

from services.dataset.snapshot.markdown import block, code, table, truncate
from services.dataset.snapshot.report import DatasetReport, RewardBin, SampledExample
from shared.events import Message
from shared.storage.object_store import canonical_json
from shared.storage.snapshots import EXAMPLE_KINDS, MEMBER_KINDS, Composition, ExampleKind, Summary

_NAMES: Mapping[ExampleKind, str] = {
    "training": "training",
    "preference": "preference",
    "negative": "negative",
    "held_out": "held out",
}
_ANSWERS: Mapping[ExampleKind, str] = {
    "training": "learnt",
    "negative": "to avoid",
    "held_out": "reference, never trained on",
}
_WHY = {
    "correction": "a person wrote what the answer should have been",
    "approved": "a person or a check approved the answer",
    "low_reward": "an answer to avoid",
    "held_out": "its prompt is one of those that candidates are judged by",
    "retracted": "taken back",
    "low_quality": "not good enough to learn from",
    "empty": "nothing to learn in it",
    "near_duplicate": "like an example that waits, was trained on or is held out",
    "contaminated": "its prompt is on the other side, or in the golden set, or too close to one that is",
    "superseded": "later feedback on the same answer took its place",
    "corrected": "a check of an answer that a person had corrected already",
    "late": "its answer was in a batch before",
    "withdrawn": "its user asked to be forgotten",
    "limits": "held back: its user or conversation has enough in this batch, or of late",
    "newcomer": "held back: its user is new",
}
_MOST_ROWS = 20
_MOST_TURNS = 6
_TURN = 600
_NAME = 80
_BAR = 40


def render_page(report: DatasetReport) -> str:
    """The page. A function of the report's values, not of the order in which it names them."""
    closed = report.closed_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    sections = (
        f"# {report.model}: batch {report.number}",
        f"{code(report.batch_id)} · closed {closed} UTC · shard {report.shard} · "
        f"{report.lane} lane",
        _summary(report),
        "## What is in it",
        _contents(report),
        "## What was left out, and why",
        _left_out(report),
        "## Who contributed",
        _by_kind(report, "source", "said no source", lambda made: made.sources),
        _by_kind(report, "answered by", "said no version", lambda made: made.model_versions),
        "## What they said",
        _by_kind(report, "feedback", "", lambda made: made.feedback_types),
        _decisions(report),
        "## Rewards and quality",
        "A reward is what the original answer was worth: a correction is learnt whatever its "
        "reward.",
        block(_bars(report.rewards)),
        _spreads(report),
        "## Where it comes from",
        table(
            ("log", "partition", "first offset", "last offset"),
            [
                (code(span.topic), *map(str, (span.partition, span.first, span.last)))
                for span in report.offsets
            ],
        ),
        "## Policy",
        f"The model file with digest {code(report.model_digest)}; in force when the batch closed:",
        table(("curation", ""), _settings(report.policy.curation), left=2),
        table(("reward", ""), _settings(report.policy.reward), left=2),
        "## A few examples",
        "Drawn by the hash of their ids; shown as they are stored, without their users.",
        *(_sample(sample) for sample in report.samples),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(report: DatasetReport) -> str:
    members = sum(report.made_of[kind].examples for kind in MEMBER_KINDS)
    dropped, training = sum(report.dropped.values()), report.made_of["training"]
    decided = members + dropped
    held_back = (
        f" {_counted(sum(report.held_back.values()), 'event')} held back for a later batch."
        if report.held_back
        else ""
    )
    return (
        f"Of {_counted(decided, 'event')}, {members} are in this batch and {dropped} were "
        f"left out ({_share(dropped, decided)}), "
        f"{report.dropped.get('near_duplicate', 0)} of them as near-duplicates.{held_back} "
        f"Of {_counted(training.examples, 'training example')}, "
        f"{_share(training.feedback_types.get('correction', 0), training.examples)} "
        f"are corrections; {_users_of(training)}."
    )


def _users_of(made: Composition) -> str:
    users = made.users
    if not users.distinct:
        return "none names a user"
    unnamed = f", and {users.unnamed} without one" if users.unnamed else ""
    return (
        f"they come from {_counted(users.distinct, 'user')}, none with more than "
        f"{users.largest_share:.0%}{unnamed}"
    )


def _contents(report: DatasetReport) -> str:
    def row(kind: ExampleKind) -> tuple[str, ...]:
        made = report.made_of[kind]
        counts = (
            made.examples,
            made.feedback_types.get("correction", 0),
            made.prompts,
            made.answers,
            made.users.distinct,
        )
        return _NAMES[kind], *map(str, counts), f"{made.users.largest_share:.0%}"

    header = (
        "",
        "examples",
        "corrections",
        "different prompts",
        "different answers",
        "users",
        "largest share of one",
    )
    rows = table(header, map(row, EXAMPLE_KINDS))
    return f"{rows}\n\nA preference is a training example again, with the answer that it rejects."


def _left_out(report: DatasetReport) -> str:
    total = sum(report.dropped.values())
    rows = [
        (code(reason), _WHY.get(reason, ""), str(count), _share(count, total))
        for reason, count in _most_first(report.dropped)
    ]
    waiting = [
        (code(reason), _WHY.get(reason, "held back for a later batch"), str(count), "")
        for reason, count in _most_first(report.held_back)
    ]
    return (
        table(("reason", "", "events", "share"), [*rows, *waiting], left=2)
        if rows or waiting
        else "Nothing."
    )


def _decisions(report: DatasetReport) -> str:
    rows = [
        (_NAMES[kind], code(reason), _WHY.get(reason, ""), str(count))
        for kind in MEMBER_KINDS
        for reason, count in _most_first(report.reasons.get(kind, {}))
    ]
    return table(("decision", "reason", "", "events"), rows, left=3)


def _by_kind(
    report: DatasetReport,
    title: str,
    nameless: str,
    counts_of: Callable[[Composition], Mapping[str, int]],
) -> str:
    """A row for each name that members have, most frequent first, with a column for each kind."""
    columns = [counts_of(report.made_of[kind]) for kind in MEMBER_KINDS]
    totals: dict[str, int] = {}
    for counts in columns:
        for name, count in counts.items():
            totals[name] = totals.get(name, 0) + count
    ranked = _most_first(totals)
    members = sum(totals.values())
    rows = [
        (
            code(truncate(name, _NAME)) or nameless,
            *(str(counts.get(name, 0)) for counts in columns),
            _share(total, members),
        )
        for name, total in ranked[:_MOST_ROWS]
    ]
    rest = ranked[_MOST_ROWS:]
    if rest:
        others = (sum(counts.get(name, 0) for name, _ in rest) for counts in columns)
        rows.append(
            (
                f"{len(rest)} others",
                *map(str, others),
                _share(sum(total for _, total in rest), members),
            )
        )
    return table((title, *(_NAMES[kind] for kind in MEMBER_KINDS), "share"), rows)


def _bars(rewards: Sequence[RewardBin]) -> str:
    most = max((found.examples for found in rewards), default=0)
    lines = (
        f"{found.first:+.2f} to {found.last:+.2f} "
        f"│{'█' * -(-_BAR * found.examples // most) if most else ''} {found.examples}"
        for found in rewards
    )
    return "\n".join(lines)


def _spreads(report: DatasetReport) -> str:
    def cells(spread: Summary | None, sign: str) -> tuple[str, ...]:
        return (
            tuple(f"{value:{sign}.2f}" for value in (spread.least, spread.mean, spread.most))
            if spread
            else ("–", "–", "–")
        )

    def row(kind: ExampleKind) -> tuple[str, ...]:
        made = report.made_of[kind]
        return _NAMES[kind], *cells(made.reward, "+"), *cells(made.quality, "")

    return table(
        ("", "least reward", "mean", "most", "least quality", "mean", "most"),
        map(row, MEMBER_KINDS),
    )


def _settings(values: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    return [
        (code(name), code(truncate(canonical_json(value).decode(), _NAME)))
        for name, value in sorted(values.items())
    ]


def _sample(sample: SampledExample) -> str:
    said = (
        f"**{_NAMES[sample.kind]}** · {code(sample.feedback_type)} · reward {sample.reward:+.2f} "
        f"· quality {sample.quality:.2f}"
    )
    by = f" · answered by {code(sample.model_version)}" if sample.model_version else ""
    turns = [*_turns(sample.messages), (_ANSWERS[sample.kind], sample.answer)]
    if sample.rejected is not None:
        turns.append(("rejected", sample.rejected))
    # Indented, so that no text can pass for the label of another turn.
    text = "\n\n".join(
        f"[{who}]\n{indent(truncate(content, _TURN), '  ')}" for who, content in turns
    )
    return f"{said}{by} · {code(sample.feedback_id)}\n\n{block(text)}"


def _turns(messages: Sequence[Message]) -> Iterable[tuple[str, str]]:
    """The last turns of a conversation, and how many there are before."""
    left_out = len(messages) - _MOST_TURNS
    if left_out > 0:
        yield f"{left_out} earlier turns", "…"
    for message in messages[-_MOST_TURNS:]:
        yield message.role, message.content


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
