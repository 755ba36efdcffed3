"""Names: a fake finder, Presidio if it is installed, and the error if it is not."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from shared.config.redaction_policy import RedactionPolicy
from shared.errors import Misconfigured
from shared.redaction.names import load_name_finder
from shared.redaction.pii_match import PiiMatch
from shared.redaction.redactor import Redactor
from tests.feedback.feedback_events import make_feedback
from tests.support.service_process import ServiceProcess

INSTALLED = find_spec("presidio_analyzer") is not None and find_spec("spacy") is not None


class ListedNames:
    """Finds the people in its list."""

    def __init__(self) -> None:
        self.people: set[str] = set()

    def __call__(self, text: str) -> Iterator[PiiMatch]:
        for person in sorted(self.people, key=text.find):
            if (start := text.find(person)) >= 0:
                yield PiiMatch(start, start + len(person), "person", person.casefold())


def test_names_are_replaced_if_the_policy_asks_for_it() -> None:
    find_names = ListedNames()
    redactor = Redactor(RedactionPolicy(names=True), find_names)
    feedback = make_feedback(input="I am Ada, ada@example.com", output="Dear Ada", user_id="Ada")
    assert redactor.redact(feedback).feedback.output == "Dear Ada"
    find_names.people.add("Ada")
    result = redactor.redact(feedback)
    assert (result.feedback.input, result.feedback.output) == (
        "I am <PERSON_1>, <EMAIL_1>",
        "Dear <PERSON_1>",
    )
    assert result.counts == {"person": 3, "email": 1}
    assert (
        Redactor(RedactionPolicy(names=False), find_names).redact(feedback).feedback.output
        == "Dear Ada"
    )


def test_other_matches_are_not_names() -> None:
    find_names = ListedNames()
    find_names.people.add("ada")
    redactor = Redactor(RedactionPolicy(names=True), find_names)
    assert redactor.redact(make_feedback(output="ada@example.com")).feedback.output == "<EMAIL_1>"


@pytest.mark.skipif(INSTALLED, reason="the extra `presidio` is installed")
def test_without_the_extra_the_service_refuses_to_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.yaml").write_text(
        "model: m\nbase: {training: b, serving: b.gguf}\nredaction: {names: true}\n"
    )
    service = ServiceProcess("feedback", "127.0.0.1:1", tmp_path)
    service.launch()
    assert service.process is not None
    assert service.process.wait(60) != 0
    assert "pip install '.[presidio]'" in service.log


@pytest.mark.skipif(not INSTALLED, reason="the extra `presidio` is not installed")
@pytest.mark.filterwarnings("default")  # spaCy and its dependencies warn about each other
def test_presidio_finds_people_and_places(tmp_path: Path) -> None:
    from spacy.lang.en import English

    pipeline = English()
    pipeline.add_pipe("entity_ruler").add_patterns(  # type: ignore[attr-defined,unused-ignore] # untyped where spaCy is not installed
        [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "London"}]
    )
    pipeline.to_disk(tmp_path / "pipeline")
    redactor = Redactor(
        RedactionPolicy(names=True), load_name_finder(str(tmp_path / "pipeline"), "en")
    )
    result = redactor.redact(
        make_feedback(output="Dear Ada Lovelace (ada@example.com), come to London, Ada Lovelace")
    )
    assert result.feedback.output == "Dear <PERSON_1> (<EMAIL_1>), come to <PLACE_1>, <PERSON_1>"
    with pytest.raises(Misconfigured, match="RATCHET_NAMES_PIPELINE: 'en_none' is neither"):
        load_name_finder("en_none", "en")
