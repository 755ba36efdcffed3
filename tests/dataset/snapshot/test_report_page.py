"""The report page: a golden file, and properties of every page.

After a deliberate change of the page, write `render_page(REPORT)` to golden/page.md and review the
difference.
"""

from datetime import timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from services.dataset.snapshot.report import DatasetReport, report_of
from services.dataset.snapshot.report_page import render_page, template_environment
from shared.events import Message
from tests.support.batches import FILE, batch_plan, member

GOLDEN = Path(__file__).parents[1] / "golden"
REPORT = DatasetReport.model_validate_json((GOLDEN / "report.json").read_bytes())
TEXT = st.text(st.sampled_from(list("a`|#<>[]*\n -~")), min_size=1, max_size=40)


def headings(page: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    return [
        tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"
    ]


def test_page_equals_golden_file() -> None:
    assert render_page(REPORT) == (GOLDEN / "page.md").read_text(encoding="utf-8")


def test_template_refuses_text_that_is_not_escaped() -> None:
    template = template_environment().from_string("{{ text }}")
    with pytest.raises(TypeError, match="must escape"):
        template.render(text="<script>")


def test_page_shows_times_in_utc() -> None:
    assert REPORT.closed_at is not None
    elsewhere = REPORT.model_copy(
        update={"closed_at": REPORT.closed_at.astimezone(timezone(timedelta(hours=5)))}
    )
    assert render_page(elsewhere) == render_page(REPORT)


@given(
    st.permutations(sorted(REPORT.dropped)),
    st.permutations(sorted(REPORT.made_of["training"].sources)),
)
def test_page_does_not_depend_on_mapping_order(reasons: list[str], sources: list[str]) -> None:
    training = REPORT.made_of["training"]
    training = training.model_copy(
        update={"sources": {name: training.sources[name] for name in sources}}
    )
    curation = dict(reversed(REPORT.policy.curation.items()))
    changed = {
        "dropped": {reason: REPORT.dropped[reason] for reason in reasons},
        "made_of": REPORT.made_of | {"training": training},
        "policy": REPORT.policy.model_copy(update={"curation": curation}),
    }
    assert render_page(REPORT.model_copy(update=changed)) == render_page(REPORT)


@given(TEXT, TEXT, TEXT)
def test_user_text_cannot_change_the_page_structure(prompt: str, answer: str, version: str) -> None:
    messages = (Message(role="user", content=prompt),)
    example = member(
        f"{answer}|{prompt}", 0, messages=messages, answer=answer, model_version=version
    )
    page = render_page(report_of(batch_plan(example), FILE, 0))
    assert headings(page)[1:] == headings(render_page(REPORT))[1:]


def test_rare_sources_are_summed_up() -> None:
    members = [member(f"/app-{number:02}|{number}", number) for number in range(30)]
    page = render_page(report_of(batch_plan(*members), FILE, 0))
    assert "| 10 others | 10 | 0 | 0 | 33% |" in page
    assert page.count("`/app-") == 20 + 3
