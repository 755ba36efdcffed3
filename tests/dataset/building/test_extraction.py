"""Examples from the structure of documents."""

from services.dataset.building.candidate import Candidate
from services.dataset.building.extraction import extract
from services.dataset.building.recipe import QuestionWording
from services.dataset.sources.chunking import chunks_of
from services.dataset.sources.document import SourceDocument
from services.dataset.sources.html_files import read_html
from services.dataset.sources.markdown_files import read_markdown
from services.dataset.sources.transcripts import read_transcript

WORDING = QuestionWording()


def extracted(
    document: SourceDocument, wording: QuestionWording = WORDING, name: str = "a.md"
) -> list[Candidate]:
    return list(extract(chunks_of(name, document), wording))


def asked(document: SourceDocument, wording: QuestionWording = WORDING) -> dict[str, str]:
    return {each.question: each.answer for each in extracted(document, wording)}


def test_sections_and_headings_that_are_questions() -> None:
    document = read_markdown(
        "# Larkspur\n\nAn intro.\n\n## Who repairs it?\n\nTomas does.\n\n## Power\n\nTwo cells.\n"
    )
    candidates = extracted(document)
    assert [(each.origin, each.question, each.answer, each.place) for each in candidates] == [
        ("section", "What does “Larkspur” say about Larkspur?", "An intro.", "a.md, line 3"),
        ("question", "Who repairs it?", "Tomas does.", "a.md, line 7"),
        ("section", "What does “Larkspur” say about Power?", "Two cells.", "a.md, line 11"),
    ]


def test_headings_that_repeat_are_named_with_those_above() -> None:
    document = read_markdown(
        "# L2\n\na\n\n## Notes\n\nFirst.\n\n# L3\n\nb\n\n## Notes\n\nSecond.\n"
    )
    answers = asked(document)
    assert answers["What does “L2” say about L2 / Notes?"] == "First."
    assert answers["What does “L2” say about L3 / Notes?"] == "Second."
    assert "What does “L2” say about L3?" in answers


def test_long_sections_have_numbered_parts() -> None:
    paragraphs = "\n\n".join(f"Paragraph {n}. " + "word " * 150 for n in range(6))
    answers = asked(read_markdown(f"# Long\n\n{paragraphs}\n"))
    assert list(answers) == [
        f"What does “Long” say about Long? (part {n} of {len(answers)})"
        for n in range(1, len(answers) + 1)
    ]
    assert len(answers) == 3


def test_text_without_a_heading_has_no_example() -> None:
    assert extracted(read_markdown("Only a paragraph.\n")) == []


def test_definitions_and_cells() -> None:
    document = read_html(
        "<title>Terms</title><dl><dt>Tip</dt><dd>A swing.</dd></dl>"
        "<table><tr><th>Part</th><th>Price</th><th></th></tr>"
        "<tr><td>Funnel</td><td>5 EUR</td><td>x</td></tr>"
        "<tr><td></td><td>6 EUR</td></tr><tr><td>Clamp</td><td>-</td></tr></table>"
        "<table><tr><td>no</td><td>header</td></tr></table>"
    )
    assert asked(document) == {
        "What does “Tip” mean in “Terms”?": "A swing.",
        "According to “Terms”, what is the Price of Funnel?": "5 EUR",
    }


def test_wording_of_a_recipe() -> None:
    wording = QuestionWording(section="Was steht in {title} über {heading}?")
    assert asked(read_markdown("# Strom\n\nZwei Zellen.\n"), wording) == {
        "Was steht in Strom über Strom?": "Zwei Zellen."
    }


def test_questions_that_another_speaker_answers() -> None:
    document = read_transcript(
        "Ines: Good morning. When does the L3 come out?\n"
        "Tomas: In spring.\n"
        "Ines: Good.\n"
        "Tomas: Who tells the dealers?\n"
        "Ines: Do you mean all of them?\n"
        "Tomas: Yes, all.\n"
    )
    candidates = extracted(document, name="call.txt")
    assert [(each.origin, each.question, each.answer, each.place) for each in candidates] == [
        ("transcript", "When does the L3 come out?", "In spring.", "call.txt, lines 1 to 2"),
        ("transcript", "Do you mean all of them?", "Yes, all.", "call.txt, lines 5 to 6"),
    ]


def test_a_fact_has_one_candidate_with_all_wordings() -> None:
    document = read_markdown("# L2\n\n- **Tip**: a swing\n\n| a | b |\n|---|---|\n| x | 1 |\n")
    wording = QuestionWording.model_validate(
        {"section": [], "definition": "{term}?", "table": ["{row}: {column}?", "{row}?", "{row}?"]}
    )
    assert [(each.questions, each.answer) for each in extracted(document, wording)] == [
        (("Tip?",), "a swing"),
        (("x: b?", "x?"), "1"),
    ]
