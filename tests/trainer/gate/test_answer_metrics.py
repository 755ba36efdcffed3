"""Answer metrics: values derived by hand."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.gate.answer_metrics import (
    ANSWER_METRICS,
    answer_metric,
    perplexity,
    set_metric,
)

REFERENCES = ["the cat sat on the mat", '{"queue": "a"}']


def test_perplexity_is_the_effective_number_of_choices() -> None:
    """Log-likelihoods of -log 2 and -log 8 have the mean -log 4."""
    assert perplexity([-log(2), -log(8)]) == pytest.approx(4)


def test_metrics_of_identical_and_disjoint_answers() -> None:
    for metric in ("bleu", "chrf"):
        assert set_metric(metric, REFERENCES, REFERENCES) == pytest.approx(100)
        assert set_metric(metric, ["0", "1"], REFERENCES) == pytest.approx(0, abs=1e-6)
    assert set_metric("exact_match", REFERENCES, REFERENCES) == 1


def test_bleu_is_the_geometric_mean_of_precisions() -> None:
    """`the cat sat on the rug`: 5 of 6 words, 4 of 5 bigrams, 3 of 4 trigrams and 2 of 3 4-grams
    match, and so does the length: (5/6 · 4/5 · 3/4 · 2/3)^(1/4) = (1/3)^(1/4) = 0.7598.
    """
    assert set_metric("bleu", ["the cat sat on the rug"], REFERENCES[:1]) == pytest.approx(
        75.98, abs=0.01
    )


def test_exact_match_ignores_surrounding_space() -> None:
    assert answer_metric("exact_match", [" yes\n", "Yes", ""], ["yes", "yes", "yes"]) == [1, 0, 0]


def test_only_objects_and_arrays_are_valid_json() -> None:
    answers = ['{"a": 1}', "[]", '{"a": 1', "7", "null", '{"a": 1} and more', ""]
    assert answer_metric("json_validity", answers, [""] * len(answers)) == [1, 1, 0, 0, 0, 0, 0]


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=5
    )
)
def test_every_metric_is_in_its_range(pairs: list[tuple[str, str]]) -> None:
    answers, references = [list(side) for side in zip(*pairs, strict=True)]
    for metric in ANSWER_METRICS:
        maximum = 100 if metric in ("bleu", "chrf") else 1
        for value in (
            set_metric(metric, answers, references),
            *answer_metric(metric, answers, references),
        ):
            assert 0 <= value <= maximum + 1e-6
