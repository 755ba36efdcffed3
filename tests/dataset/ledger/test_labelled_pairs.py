"""The labelled pairs are what their README says."""

from collections import Counter

from tests.dataset.ledger.similarity.labelled_pairs import HALVES, labelled_pairs

LANGUAGES = {"en", "de", "es", "zh", "ja", "th", "hi"}


def test_both_halves_hold_both_labels_in_all_languages() -> None:
    for half in HALVES:
        pairs = labelled_pairs(half)
        assert len(pairs) == 126
        assert {(pair.label, pair.language) for pair in pairs} == {
            (label, language) for label in ("same", "other") for language in LANGUAGES
        }
        assert min(Counter(pair.label for pair in pairs).values()) >= 50


def test_every_pair_occurs_once_and_differs() -> None:
    pairs = [pair for half in HALVES for pair in labelled_pairs(half)]
    assert len({(pair.first, pair.second) for pair in pairs}) == len(pairs)
    assert all(pair.first != pair.second for pair in pairs)
    assert not any("{" in pair.first.prompt for pair in pairs)
