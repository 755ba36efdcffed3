"""What models are known by: numbers derived by hand."""

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


def test_perplexity_is_the_number_of_tokens_that_a_model_hesitates_between() -> None:
    """Log-likelihoods of -log 2 and -log 8 have the mean -log 4."""
    assert perplexity([-log(2), -log(8)]) == pytest.approx(4)


def test_what_is_the_reference_has_the_highest_measure_and_what_shares_nothing_the_lowest() -> None:
    for measure in ("bleu", "chrf"):
        assert set_metric(measure, REFERENCES, REFERENCES) == pytest.approx(100)
        assert set_metric(measure, ["0", "1"], REFERENCES) == pytest.approx(0, abs=1e-6)
    assert set_metric("exact_match", REFERENCES, REFERENCES) == 1


def test_bleu_is_the_geometric_mean_of_precisions() -> None:
    """`the cat sat on the rug`: 5 of 6 words, 4 of 5 pairs, 3 of 4 triples and 2 of 3 quadruples
    are right, the length too: (5/6 · 4/5 · 3/4 · 2/3)^(1/4) = (1/3)^(1/4) = 0.7598.
    """
    assert set_metric("bleu", ["the cat sat on the rug"], REFERENCES[:1]) == pytest.approx(
        75.98, abs=0.01
    )


def test_exact_match_leaves_out_the_space_around_an_answer() -> None:
    assert answer_metric("exact_match", [" yes\n", "Yes", ""], ["yes", "yes", "yes"]) == [1, 0, 0]


def test_json_is_an_object_or_an_array_and_nothing_else() -> None:
    answers = ['{"a": 1}', "[]", '{"a": 1', "7", "null", '{"a": 1} and more', ""]
    assert answer_metric("json_validity", answers, [""] * len(answers)) == [1, 1, 0, 0, 0, 0, 0]


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=5
    )
)
def test_every_measure_of_any_text_is_in_its_range(pairs: list[tuple[str, str]]) -> None:
    answers, references = [list(side) for side in zip(*pairs, strict=True)]
    for measure in ANSWER_METRICS:
        most = 100 if measure in ("bleu", "chrf") else 1
        for value in (
            set_metric(measure, answers, references),
            *answer_metric(measure, answers, references),
        ):
            assert 0 <= value <= most + 1e-6
