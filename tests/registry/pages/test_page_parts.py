"""Charts, differences, timeline and progress of the pages, without a database."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.pages.charts import (
    INTERVAL_MARGIN,
    INTERVAL_WIDTH,
    SPARK_HEIGHT,
    SPARK_WIDTH,
    interval_bars,
    sparkline,
)
from services.registry.pages.differences import Difference, answer_of, answer_pairs, differences
from services.registry.pages.rendering import Templates
from services.registry.pages.timeline import timeline
from services.registry.store.queries import MeanReward
from services.registry.store.tables import AuditRow, DeploymentRow, RunRow
from shared.clock import ManualClock
from tests.support.registry_events import NOW

NUMBERS = st.floats(-1e6, 1e6)
NESTED = st.recursive(
    st.none() | st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_sparkline_stays_in_view_from_left_to_right(values: list[float]) -> None:
    picture = sparkline(values)
    assert picture is not None
    points = [tuple(map(float, point.split(","))) for point in picture.line.split()]
    assert len(points) == len(values)
    assert all(0 <= x <= SPARK_WIDTH and 0 <= y <= SPARK_HEIGHT for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert picture.end == points[-1]


def test_sparkline_rises_with_values() -> None:
    picture = sparkline([-4.0, -0.5])
    assert picture is not None
    assert picture.line == "4.0,28.0 116.0,4.0"
    assert sparkline([]) is None


@given(NUMBERS, st.floats(0, 1e3), st.floats(0, 1e3), st.none() | st.floats(0, 1e3))
def test_interval_bar_keeps_order_and_margins(
    difference: float, down: float, up: float, margin: float | None
) -> None:
    (bar,) = interval_bars([(difference - down, difference, difference + up, margin)])
    assert (
        INTERVAL_MARGIN
        <= bar.lower
        <= bar.difference
        <= bar.upper
        <= INTERVAL_WIDTH - INTERVAL_MARGIN
    )
    assert bar.zero == INTERVAL_WIDTH / 2
    assert (bar.allowed is None) == (not margin)
    assert bar.allowed is None or bar.allowed <= bar.zero


@given(
    NESTED.filter(lambda value: isinstance(value, dict)),
    NESTED.filter(lambda value: isinstance(value, dict)),
)
def test_differences_are_symmetric(first: Any, second: Any) -> None:
    forth, back = differences(first, second), differences(second, first)
    assert {(row.name, row.first, row.second) for row in forth} == {
        (row.name, row.second, row.first) for row in back
    }
    assert differences(first, first) == []


def test_differences_have_dotted_names() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        Difference("a.c", 2, 3),
        Difference("d", None, 4),
    ]


def probe(prompt: str, *texts: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": prompt}],
        "answer": [{"text": text} for text in texts],
    }


def test_answer_pairs_share_their_prompt() -> None:
    rows = answer_pairs(
        [probe("a", "Ye", "s", "<|im_end|>"), probe("b", "x")], [probe("c", "y"), probe("a", "No")]
    )
    assert [(row.first, row.second, row.same) for row in rows] == [("Yes", "No", False)]
    assert answer_of(probe("a", "<b>", " bold")) == "<b> bold"


@dataclass
class Past:
    history: list[AuditRow] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    deployments: list[DeploymentRow] = field(default_factory=list)

    def moved(
        self, minute: int, action: str, to: str, origin: str | None = None, **evidence: Any
    ) -> None:
        at = NOW + timedelta(minutes=minute)
        row = AuditRow(
            model="m",
            at=at,
            actor="registry",
            action=action,
            from_version=origin,
            to_version=to,
            reason="so",
            evidence=evidence,
        )
        self.history.append(row)


def test_timeline_has_each_entry_once_newest_first() -> None:
    past = Past()
    past.moved(0, "found", "v0")
    past.moved(1, "challenge", "v1", run_id="r1")
    past.moved(1, "promote", "v1", "v0", run_id="r1", verdict={"reasons": ["better", "not worse"]})
    past.moved(3, "challenge", "v2", run_id="r3")
    past.moved(5, "roll_back", "v0", "v1")
    past.runs = [
        RunRow(run_id="r1", state="promoted", ended_at=NOW, version="v1", reason="", verdict=None),
        RunRow(
            run_id="r2",
            state="rejected",
            ended_at=NOW + timedelta(minutes=2),
            reason="worse",
            verdict={"reasons": ["much worse"]},
        ),
        RunRow(
            run_id="r4",
            state="failed",
            ended_at=NOW + timedelta(minutes=4),
            reason="no memory",
            verdict=None,
        ),
    ]
    late = NOW + timedelta(minutes=6)
    past.deployments = [
        DeploymentRow(
            target="here",
            version="v0",
            move=3,
            state="failed",
            step="push",
            reason="full",
            seconds=1.0,
            at=late,
        )
    ]
    entries = timeline(past.history, past.runs, past.deployments, {"v0": MeanReward(0.5, 9)})
    assert [(entry.kind, entry.version) for entry in entries] == [
        ("undeployed", "v0"),
        ("roll_back", "v0"),
        ("failed", None),
        ("challenge", "v2"),
        ("rejected", None),
        ("promote", "v1"),
        ("found", "v0"),
    ]
    assert [entry.reasons for entry in entries[:6]] == [
        ("at push: full",),
        ("so",),
        ("no memory",),
        ("so",),
        ("much worse",),
        ("better", "not worse"),
    ]
    assert [entry.reward for entry in entries if entry.reward] == [MeanReward(0.5, 9)]


@pytest.mark.parametrize(
    ("state", "step", "total", "expected"),
    [
        ("loading", 0, 0, "the base model is loaded"),
        ("training", 0, 0, "the first step has begun"),
        ("training", 3, 9, "step 3 of 9"),
        ("evaluating", 9, 9, "training is done after 9 steps"),
        ("evaluating", 0, 0, "candidate and champion are compared"),
        ("deciding", 9, 9, "the gate decides on the candidate"),
    ],
)
def test_each_phase_says_what_is_done(state: str, step: int, total: int, expected: str) -> None:
    """Steps are counted only between the first and the last one."""
    run = {
        "model": "support",
        "run_id": "r1",
        "state": state,
        "step": step,
        "total_steps": total,
        "ended": False,
        "updated_at": NOW,
        "points": [],
        "plot": {},
    }
    page = Templates(ManualClock(NOW)).page("_progress.html", shown=run)
    text = bytes(page.body).decode()
    assert expected in text
    assert ("<progress max=" in text) == (state == "training" and step > 0)
    assert "step 0" not in text
