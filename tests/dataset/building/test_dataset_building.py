"""Datasets built from documents: the split, redaction, duplicates, and the same result again."""

from collections.abc import Iterable
from pathlib import Path

from ratchet.dataset.verifying import verify_batches
from services.dataset.building.dataset_building import BuildReport, BuildRequest, build_dataset
from services.dataset.building.recipe import Recipe
from services.dataset.sources.reading import read_document
from shared.config.model_file import ModelFile
from shared.config.redaction_policy import RedactionPolicy
from shared.events import Message
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import Example, ExampleKind, read_examples, read_manifest
from tests.support.imported_files import curation
from tests.support.scored_feedback import model_file, words

DOCUMENTS = Path(__file__).parent.parent / "sources" / "documents"
FILE = model_file(smallest_batch=3)
NOTHING_HELD_OUT = model_file(smallest_batch=1, held_out_share=0.0)


def built(
    store: FsspecStore,
    folder: Path = DOCUMENTS,
    file: ModelFile = FILE,
    recipe: Recipe | None = None,
    golden: Iterable[tuple[Message, ...]] = (),
) -> BuildReport:
    request = BuildRequest(folder, recipe or Recipe())
    return build_dataset(
        request, file, curation(file, golden), store, read_document, lambda _: None
    )


def examples_of(store: FsspecStore, report: BuildReport, kind: ExampleKind) -> list[Example]:
    assert report.manifest is not None, report.refused
    return read_examples(store, read_manifest(store, report.manifest), kind)


def test_a_folder_becomes_a_dataset_with_its_sources(tmp_path: Path) -> None:
    store = FsspecStore(str(tmp_path))
    report = built(store, recipe=Recipe(system="You answer for Larkspur."))
    assert report.refused is None
    assert report.candidates == {
        "question": 3,
        "section": 8,
        "definition": 5,
        "table": 11,
        "transcript": 4,
    }
    training = examples_of(store, report, "training")
    by_answer = {example.answer: example for example in training}
    funnel = by_answer["18.50 EUR"]
    assert funnel.source == "guides/larkspur-manual.md, lines 23 to 27"
    assert [message.role for message in funnel.messages] == ["system", "user"]
    assert report.manifest is not None
    manifest = read_manifest(store, report.manifest)
    assert manifest.imported is not None
    assert (manifest.imported.documents, manifest.imported.lines) == (5, 31)
    assert set(manifest.made_of["training"].sources) <= {
        f"/ratchet/documents/{origin}" for origin in report.candidates
    }
    assert manifest.page is not None
    page = store.get(manifest.page.uri).decode()
    assert "31 examples from 5 documents, 0 files unreadable" in page
    assert not verify_batches(store, report.manifest, None, whole_chain=False).faults


def test_a_document_is_on_one_side_of_the_split(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(40):
        sections = "".join(f"# {words(f'{n} {m}', 3)}\n\n{words(f'{n}.{m}')}\n\n" for m in range(4))
        (folder / f"{n}.md").write_text(sections)
    store = FsspecStore(str(tmp_path / "store"))
    report = built(store, folder)
    sides: dict[ExampleKind, set[str]] = {
        kind: {(each.source or "").split(",")[0] for each in examples_of(store, report, kind)}
        for kind in ("training", "held_out")
    }
    assert sides["held_out"] == set(report.held_out_documents)
    assert 0 < len(sides["held_out"]) < 15
    assert len(sides["training"] | sides["held_out"]) == 40
    assert not sides["training"] & sides["held_out"]


def test_the_same_documents_are_the_same_dataset(tmp_path: Path) -> None:
    first, second = (FsspecStore(str(tmp_path / name)) for name in "ab")
    assert built(first) == built(second)
    recipe = Recipe(system="Another system message.")
    assert built(first, recipe=recipe).dataset != built(second).dataset


def test_personal_data_is_replaced_before_storing(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    name = "ines.weber@larkspur.example"
    (folder / f"{name}.md").write_text(f"# Support\n\nWrite to {name} at any time.\n")
    store = FsspecStore(str(tmp_path / "store"))
    assert built(store, folder, NOTHING_HELD_OUT).dropped == {"new_placeholder": 1}
    policy = RedactionPolicy(train_new_placeholders=True)
    report = built(store, folder, NOTHING_HELD_OUT.model_copy(update={"redaction": policy}))
    assert report.redacted == {"email": 2}
    [example] = examples_of(store, report, "training")
    assert "larkspur.example" not in example.model_dump_json()
    assert "larkspur.example" not in report.samples[0].answer
    assert example.source == "<EMAIL_2>, line 3"


def test_near_duplicates_of_two_sources_are_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    text = words("section", 60)
    (folder / "a.md").write_text(f"# How is it powered?\n\n{text}\n")
    (folder / "b.html").write_text(f"<h1>How is it powered?</h1><p>{text} again")
    (folder / "c.md").write_text(f"# Mounting\n\n{words('mounting')}\n")
    report = built(FsspecStore(str(tmp_path / "store")), folder, NOTHING_HELD_OUT)
    # Two answers to one question: neither is known to be right.
    assert report.filtered["ambiguous"] == 2
    (folder / "b.html").write_text(f"<h1>How is it powered ?</h1><p>{text} again")
    report = built(FsspecStore(str(tmp_path / "store")), folder, NOTHING_HELD_OUT)
    assert report.dropped == {"near_duplicate": 1}


def test_questions_of_the_golden_set_are_dropped(tmp_path: Path) -> None:
    golden = [(Message(role="user", content="Can the gauge measure snow?"),)]
    report = built(FsspecStore(str(tmp_path)), golden=golden)
    assert report.dropped == {"contaminated": 1}


def test_answers_in_another_format_are_dropped(tmp_path: Path) -> None:
    file = ModelFile.model_validate(
        {
            **NOTHING_HELD_OUT.model_dump(),
            "reward": {"name": "sorted", "version": 1, "format": "json"},
        }
    )
    recipe = Recipe.model_validate(
        {
            "templates": [{"prompt": "Price of {a}?", "answer": '{{"price": {a}}}'}],
            "values": {"a": [5, 7]},
        }
    )
    report = built(FsspecStore(str(tmp_path)), file=file, recipe=recipe)
    assert report.refused is None
    assert report.examples.training == 2
    assert report.dropped == {"format": 31}


def test_too_few_examples_are_refused_with_the_counts(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# Power\n\nShort.\n")
    store = FsspecStore(str(tmp_path / "store"))
    report = built(store, folder)
    assert (report.dataset, report.manifest) == (None, None)
    assert report.refused is not None
    assert "0 training examples are left of 1 from 1 documents (dropped: 1 length" in report.refused
    assert list(store.list_keys("snapshots")) == []
    (folder / "a.md").unlink()
    refused = built(store, folder).refused
    assert refused is not None
    assert "no file of" in refused


def test_wordings_of_a_fact_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# L2\n\n| part | price |\n|---|---|\n| funnel | 5 EUR |\n")
    wordings = ("What is the {column} of the {row}?", "What is the {column} of a {row}?")
    recipe = Recipe.model_validate({"questions": {"section": [], "table": wordings}})
    report = built(FsspecStore(str(tmp_path / "store")), folder, NOTHING_HELD_OUT, recipe)
    assert report.candidates == {"table": 1}
    assert (report.examples.training, report.dropped) == (2, {})
