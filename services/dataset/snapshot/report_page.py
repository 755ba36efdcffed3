"""The report of a batch as a Markdown page, from a Jinja2 template.

The template accepts only integers and `Markdown`, so that no text from users reaches the page
unescaped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from functools import cache
from textwrap import indent

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import JsonValue

from services.dataset.snapshot.markdown import Markdown, block, code, table, truncate
from services.dataset.snapshot.report import DatasetReport, RewardBin, SampledExample
from shared.events import Message
from shared.storage.object_store import canonical_json
from shared.storage.snapshots import EXAMPLE_KINDS, MEMBER_KINDS, Composition, ExampleKind, Summary

_TEMPLATE = "report_page.md.jinja"
_KIND_NAMES: Mapping[ExampleKind, str] = {
    "training": "training",
    "preference": "preference",
    "negative": "negative",
    "held_out": "held out",
}
_ANSWER_LABELS: Mapping[ExampleKind, str] = {
    "training": "target answer",
    "negative": "answer to avoid",
    "held_out": "reference answer, never trained on",
}
_REASONS = {
    "correction": "a user corrected the answer",
    "approved": "a user or a validation approved the answer",
    "low_reward": "an answer to avoid",
    "held_out": "the prompt belongs to the evaluation split",
    "retracted": "the user retracted the feedback",
    "low_quality": "quality below the minimum",
    "empty": "blank answer",
    "format_redacted": "redaction broke the format that the reward policy requires",
    "new_placeholder": "redaction left a placeholder in the answer that its prompt does not have",
    "near_duplicate": "similar to an example that waits, was trained on or is held out",
    "contaminated": "the prompt is on the other side of the evaluation split or in the golden set, "
    "or similar to one that is",
    "waiting_limit": "too many bytes of the user's texts wait already",
    "superseded": "superseded by later feedback on the same answer",
    "corrected": "a validation of an answer that a user had already corrected",
    "late": "the answer was in an earlier batch",
    "withdrawn": "the user's feedback was withdrawn",
    "imported": "an example of the imported file or of the documents",
    "duplicate": "the same example as an earlier one of the file",
    "limits": "deferred: the user or conversation is at its limit",
    "newcomer": "deferred: the user is new",
}
_MAX_ROWS = 20
_MAX_TURNS = 6
_MAX_TURN_LENGTH = 600
_MAX_NAME_LENGTH = 80
_BAR_WIDTH = 40


def render_page(report: DatasetReport) -> str:
    """Render the page. It depends on the report's values, not on the order of its mappings."""
    closed = report.closed_at.astimezone(UTC) if report.closed_at else None
    template = template_environment().get_template(_TEMPLATE)
    return template.render(
        report=report,
        closed=closed.strftime("%Y-%m-%d %H:%M:%S") if closed else "",
        summary=_summary(report),
        contents=_contents(report),
        left_out=_left_out(report),
        sources=_by_kind(report, "source", "no source", lambda made: made.sources),
        versions=_by_kind(report, "answered by", "no version", lambda made: made.model_versions),
        feedback_types=_by_kind(report, "feedback", "", lambda made: made.feedback_types),
        decisions=_decisions(report),
        bars=_bars(report.rewards),
        reward_summaries=_reward_summaries(report),
        offsets=_offsets(report),
        curation=table(("curation", ""), _settings(report.policy.curation), left=2),
        reward=table(("reward", ""), _settings(report.policy.reward), left=2),
        samples=[_sample(sample) for sample in report.samples],
    )


@cache
def template_environment() -> Environment:
    """Jinja2 environment whose output must be escaped Markdown or an integer."""
    environment = Environment(
        loader=PackageLoader("services.dataset.snapshot", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # it would escape for HTML; `_require_markdown` guards Markdown
        finalize=_require_markdown,
    )
    environment.filters |= {"code": code, "block": block, "trusted": Markdown}
    return environment


def _require_markdown(value: object) -> object:
    if isinstance(value, Markdown | int):
        return value
    raise TypeError(f"the page template must escape {value!r} (code, block) or trust it (trusted)")


def _summary(report: DatasetReport) -> Markdown:
    members = sum(report.made_of[kind].examples for kind in MEMBER_KINDS)
    dropped, training = sum(report.dropped.values()), report.made_of["training"]
    decided = members + dropped
    noun, container = ("example", "dataset") if report.imported else ("event", "batch")
    deferred = (
        f" {_counted(sum(report.held_back.values()), 'event')} deferred to a later batch."
        if report.held_back
        else ""
    )
    return Markdown(
        f"Of {_counted(decided, noun)}, {members} are in this {container} and {dropped} were "
        f"dropped ({_share(dropped, decided)}), "
        f"{report.dropped.get('near_duplicate', 0)} of them as near-duplicates.{deferred} "
        f"Of {_counted(training.examples, 'training example')}, "
        f"{_share(training.feedback_types.get('correction', 0), training.examples)} "
        f"are corrections; {_user_summary(training)}."
    )


def _user_summary(composition: Composition) -> str:
    users = composition.users
    if not users.distinct:
        return "none names a user"
    unnamed = f", and {users.unnamed} without a user" if users.unnamed else ""
    return (
        f"they come from {_counted(users.distinct, 'user')}, none with more than "
        f"{users.largest_share:.0%}{unnamed}"
    )


def _contents(report: DatasetReport) -> Markdown:
    def row(kind: ExampleKind) -> tuple[str, ...]:
        composition = report.made_of[kind]
        counts = (
            composition.examples,
            composition.feedback_types.get("correction", 0),
            composition.prompts,
            composition.answers,
            composition.users.distinct,
        )
        return _KIND_NAMES[kind], *map(str, counts), f"{composition.users.largest_share:.0%}"

    header = (
        "",
        "examples",
        "corrections",
        "different prompts",
        "different answers",
        "users",
        "largest share of a user",
    )
    return table(header, map(row, EXAMPLE_KINDS))


def _left_out(report: DatasetReport) -> Markdown:
    total = sum(report.dropped.values())
    dropped = [
        (code(reason), _REASONS.get(reason, ""), str(count), _share(count, total))
        for reason, count in _most_frequent_first(report.dropped)
    ]
    deferred = [
        (code(reason), _REASONS.get(reason, "deferred to a later batch"), str(count), "")
        for reason, count in _most_frequent_first(report.held_back)
    ]
    return (
        table(("reason", "", "events", "share"), [*dropped, *deferred], left=2)
        if dropped or deferred
        else Markdown("None.")
    )


def _decisions(report: DatasetReport) -> Markdown:
    rows = [
        (_KIND_NAMES[kind], code(reason), _REASONS.get(reason, ""), str(count))
        for kind in MEMBER_KINDS
        for reason, count in _most_frequent_first(report.reasons.get(kind, {}))
    ]
    return table(("decision", "reason", "", "events"), rows, left=3)


def _by_kind(
    report: DatasetReport,
    title: str,
    nameless: str,
    counts_of: Callable[[Composition], Mapping[str, int]],
) -> Markdown:
    """Table of the names that members have, most frequent first, with a column for each kind."""
    columns = [counts_of(report.made_of[kind]) for kind in MEMBER_KINDS]
    totals: dict[str, int] = {}
    for counts in columns:
        for name, count in counts.items():
            totals[name] = totals.get(name, 0) + count
    ranked = _most_frequent_first(totals)
    members = sum(totals.values())
    rows = [
        (
            code(truncate(name, _MAX_NAME_LENGTH)) or nameless,
            *(str(counts.get(name, 0)) for counts in columns),
            _share(total, members),
        )
        for name, total in ranked[:_MAX_ROWS]
    ]
    rest = ranked[_MAX_ROWS:]
    if rest:
        rest_counts = (sum(counts.get(name, 0) for name, _ in rest) for counts in columns)
        rest_total = sum(total for _, total in rest)
        rows.append((f"{len(rest)} others", *map(str, rest_counts), _share(rest_total, members)))
    return table((title, *(_KIND_NAMES[kind] for kind in MEMBER_KINDS), "share"), rows)


def _bars(rewards: Sequence[RewardBin]) -> str:
    highest = max((reward_bin.examples for reward_bin in rewards), default=0)
    lines = (
        f"{reward_bin.first:+.2f} to {reward_bin.last:+.2f} "
        f"│{'█' * -(-_BAR_WIDTH * reward_bin.examples // highest) if highest else ''} "
        f"{reward_bin.examples}"
        for reward_bin in rewards
    )
    return "\n".join(lines)


def _reward_summaries(report: DatasetReport) -> Markdown:
    def cells(summary: Summary | None, sign: str) -> tuple[str, ...]:
        return (
            tuple(f"{value:{sign}.2f}" for value in (summary.least, summary.mean, summary.most))
            if summary
            else ("–", "–", "–")
        )

    def row(kind: ExampleKind) -> tuple[str, ...]:
        composition = report.made_of[kind]
        rewards, qualities = cells(composition.reward, "+"), cells(composition.quality, "")
        return _KIND_NAMES[kind], *rewards, *qualities

    header = ("", "lowest reward", "mean", "highest", "lowest quality", "mean", "highest")
    return table(header, map(row, MEMBER_KINDS))


def _offsets(report: DatasetReport) -> Markdown:
    return table(
        ("topic", "partition", "first offset", "last offset"),
        [
            (code(covered.topic), *map(str, (covered.partition, covered.first, covered.last)))
            for covered in report.offsets
        ],
    )


def _settings(values: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    return [
        (code(name), code(truncate(canonical_json(value).decode(), _MAX_NAME_LENGTH)))
        for name, value in sorted(values.items())
    ]


def _sample(sample: SampledExample) -> dict[str, str | None]:
    """Template values of an example. `text` is its conversation, not yet escaped."""
    turns = [*_turns(sample.messages), (_ANSWER_LABELS[sample.kind], sample.answer)]
    if sample.rejected is not None:
        turns.append(("rejected answer", sample.rejected))
    if sample.comment is not None:
        turns.append(("comment of the user", sample.comment))
    return {
        "kind": _KIND_NAMES[sample.kind],
        "feedback_type": sample.feedback_type,
        "reward": f"{sample.reward:+.2f}",
        "quality": f"{sample.quality:.2f}",
        "model_version": sample.model_version,
        "feedback_id": sample.feedback_id,
        # Indented, so that no text can be mistaken for the label of another turn.
        "text": "\n\n".join(
            f"[{label}]\n{indent(truncate(content, _MAX_TURN_LENGTH), '  ')}"
            for label, content in turns
        ),
    }


def _turns(messages: Sequence[Message]) -> Iterable[tuple[str, str]]:
    """Yield the last turns of a conversation, after the number of earlier ones left out."""
    left_out = len(messages) - _MAX_TURNS
    if left_out > 0:
        yield f"{left_out} earlier turns", "…"
    for message in messages[-_MAX_TURNS:]:
        yield message.role, message.content


def _most_frequent_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
