"""Filters, balance, and the choice of documents to hold out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.dataset.building.balance import LEAST_OF_ORIGIN, balanced, spread
from services.dataset.building.candidate import Candidate, Origin
from services.dataset.building.dataset_building import filter_candidates
from services.dataset.building.held_out_documents import LEAST_DOCUMENTS, held_out_documents

LONG = "An answer of some length about a rain gauge."


def candidates(origin: Origin, count: int, document: str = "a") -> list[Candidate]:
    return [Candidate(origin, f"{origin} {document} {n}?", LONG, document) for n in range(count)]


def test_filters_count_in_their_order() -> None:
    found = [
        Candidate("section", "short?", "Too short.", "a"),
        Candidate("table", "cell?", "5", "a"),
        Candidate("table", "blank?", "--", "a"),
        Candidate("section", "licence?", f"{LONG} Licensed under the Apache License.", "a"),
        Candidate("table", "Price of X?", "5 EUR", "a"),
        Candidate("table", "price of  x?", "6 EUR", "b"),
        Candidate("definition", "Tip?", "a swing", "a"),
        Candidate("definition", "Tip?", "a  swing", "b"),
        Candidate("template", "Sure?", "Yes."),
        Candidate("template", "Sure?", "Certainly."),
    ]
    kept, filtered = filter_candidates(found, 100)
    assert filtered == {"licence": 1, "length": 2, "ambiguous": 2, "balance": 0}
    assert [each.question for each in kept] == ["cell?", "Tip?", "Tip?", "Sure?", "Sure?"]


def test_an_ambiguous_wording_leaves_the_others() -> None:
    found = [
        Candidate("table", "Price?", "5", "a", rewordings=("Price of X?", "X: price?")),
        Candidate("table", "Price?", "6", "a", rewordings=("Price of Y?",)),
        Candidate("table", "Price?", "7", "b"),
    ]
    kept, filtered = filter_candidates(found, 100)
    assert [each.questions for each in kept] == [("Price of X?", "X: price?"), ("Price of Y?",)]
    assert filtered["ambiguous"] == 1


def test_text_of_a_document_wins_over_a_teacher() -> None:
    found = [
        Candidate("question", "Which gateways?", "G1 and G2", "a"),
        Candidate("taught", "which gateways?", "G1", "a"),
        Candidate("taught", "Which gateways?", "G1  and G2", "a"),
        Candidate("taught", "How far?", "7 km", "a"),
        Candidate("taught", "How far?", "7 km", "b"),
        Candidate("taught", "How high?", "2 m", "a"),
        Candidate("taught", "How high?", "3 m", "a"),
        Candidate("table", "Price?", "5", "a"),
        Candidate("table", "Price?", "6", "a"),
        Candidate("taught", "Price?", "5", "a"),
    ]
    kept, filtered = filter_candidates(found, 100)
    assert [found.index(each) for each in kept] == [0, 2, 3, 4]
    assert filtered["ambiguous"] == 6


def test_the_largest_origin_is_reduced_to_the_others() -> None:
    found = candidates("table", 3 * LEAST_OF_ORIGIN) + candidates("section", 250)
    counts = Counter(each.origin for each in balanced(found, 10_000))
    assert counts == {"table": 250, "section": 250}
    few = candidates("table", 3 * LEAST_OF_ORIGIN) + candidates("section", 3)
    counts = Counter(each.origin for each in balanced(few, 10_000))
    assert counts == {"table": LEAST_OF_ORIGIN, "section": 3}
    alone = candidates("table", 3 * LEAST_OF_ORIGIN)
    assert balanced(alone, 10_000) == alone


def test_origins_and_documents_take_turns_under_a_limit() -> None:
    found = [
        *candidates("section", 50, "a"),
        *candidates("section", 50, "b"),
        *candidates("section", 2, "c"),
        *candidates("definition", 5),
    ]
    kept = balanced(found, 25)
    assert Counter(each.origin for each in kept) == {"section": 20, "definition": 5}
    assert Counter(each.document for each in kept if each.origin == "section") == {
        "a": 9,
        "b": 9,
        "c": 2,
    }
    assert kept == [each for each in found if each in kept]


@given(st.lists(st.integers(min_value=0, max_value=30), max_size=12), st.integers(0, 100))
def test_chunks_are_spread_evenly(sizes: list[int], most: int) -> None:
    taken = spread([list(range(size)) for size in sizes], most)
    assert sum(map(len, taken)) == min(most, sum(sizes))
    assert all(part == list(range(len(part))) for part in taken)
    full = max(map(len, taken), default=0)
    assert all(len(part) >= min(size, full - 1) for part, size in zip(taken, sizes, strict=True))


def test_a_document_keeps_its_side_when_others_come() -> None:
    few = {f"document {n}.md": 10 for n in range(100)}
    more = {**few, **{f"later {n}.md": 10 for n in range(100)}}
    chosen = held_out_documents(few, 0.1)
    assert 3 < len(chosen) < 20
    assert chosen == held_out_documents(more, 0.1) & few.keys()


def test_one_small_document_is_held_out_at_least() -> None:
    share = 1e-9
    documents = {"large.md": 100, **{f"{n}.md": 5 for n in range(LEAST_DOCUMENTS)}}
    [chosen] = held_out_documents(documents, share)
    assert chosen != "large.md"
    assert held_out_documents(documents, 0) == frozenset()
    assert held_out_documents({"a.md": 5, "b.md": 5}, share) == frozenset()
    assert held_out_documents({"a.md": 5}, 0.999999) == frozenset()
