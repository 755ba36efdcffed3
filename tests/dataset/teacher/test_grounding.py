"""Grounding of examples in their passage."""

import pytest

from services.dataset.sources.chunking import Chunk, chunks_of
from services.dataset.sources.markdown_files import read_markdown
from services.dataset.teacher.grounding import fault_of
from services.dataset.teacher.reply import TaughtExample

[PASSAGE] = chunks_of(
    "heron.md",
    read_markdown(
        "# Heron G2\n\nThe gateway reaches gauges at up to 7 km, and stores 1,000 readings. "
        "It was tested by Ines Weber in March 2024 with two cells of 3.50 V over LoRaWAN.\n"
    ),
)
QUOTE = "reaches gauges at up to 7 km"


@pytest.mark.parametrize(
    ("question", "answer", "quote"),
    [
        ("How far does the Heron G2 reach?", "Up to 7 km.", QUOTE),
        ("How many readings does it store?", "1000 readings.", "stores 1,000 readings"),
        ("Who tested the gateway?", "Ines Weber's team did.", "It was tested by Ines Weber"),
        ("With which cells?", "2 cells of 3.5 V.", "with two cells of 3.50 V"),
        ("How far?", "Up to 7 km.", "The Gateway reaches  gauges, at up to 7km"),
        ("How far?", "Up to 7 km.", "“reaches gauges at up to 7 km…”"),
        ("Which radio is used?", "- LoRaWAN\n- Nothing else", "3.50 V over LoRaWAN"),
    ],
)
def test_examples_that_the_passage_supports(question: str, answer: str, quote: str) -> None:
    assert fault_of(TaughtExample(question, answer, quote), PASSAGE) is None


@pytest.mark.parametrize(
    ("question", "answer", "quote", "reason"),
    [
        ("What does the passage say?", "Up to 7 km.", QUOTE, "refers_to_passage"),
        ("How far?", "Up to 7 km.", "", "quote"),
        ("How far?", "Up to 7 km.", "7", "quote"),
        ("How far?", "Up to 7 km.", "is sold with a pole and a clamp", "quote"),
        ("How far?", "Up to 7 km.", PASSAGE.text * 2, "quote"),
        ("How far?", "Up to 9 km.", QUOTE, "number"),
        ("How far with 5 cells?", "Up to 7 km.", QUOTE, "number"),
        ("When?", "In March 2025.", "in March 2024", "number"),
        ("When?", "In April 2024.", "in March 2024", "name"),
        ("Who?", "It was Tomas Weber.", "It was tested by Ines Weber", "name"),
        ("How far does the Heron G3 reach?", "Up to 7 km.", QUOTE, "number"),
        ("How many readings?", "1,000 readings.", QUOTE, "not_in_quote"),
        ("Who tested it?", "It was Ines Weber.", QUOTE, "not_in_quote"),
        ("What is used?", "The radio is NarrowBand.", "3.50 V over LoRaWAN", "name"),
    ],
)
def test_examples_that_are_not_grounded(
    question: str, answer: str, quote: str, reason: str
) -> None:
    assert fault_of(TaughtExample(question, answer, quote), PASSAGE) == reason


def test_a_short_passage_can_be_the_quote() -> None:
    span = PASSAGE.span
    block = PASSAGE.blocks[0].model_copy(update={"text": "Yes.", "span": span})
    chunk = Chunk("a.md", "Sure?", (), (block,))
    assert fault_of(TaughtExample("Sure?", "Yes.", "Yes."), chunk) is None
