"""The documents of a folder as chunks: duplicates, boilerplate, scans, and the limit."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.dataset.building.corpus import Corpus, read_corpus
from services.dataset.sources.document import SourceDocument
from services.dataset.sources.folder import find_files
from services.dataset.sources.reading import read_document
from shared.errors import CommandRefused
from tests.support.documents import pdf_of


def folder_of(tmp_path: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def corpus_of(folder: Path, most_chunks: int = 100) -> Corpus:
    return read_corpus(find_files(folder), read_document, most_chunks, lambda _: None)


def test_files_left_out_are_counted_with_their_reason(tmp_path: Path) -> None:
    scan = pdf_of([[("Seen.", 10.0)], []], picture_pages=[1])
    only_scans = pdf_of([[], []], picture_pages=[0, 1])
    folder = folder_of(
        tmp_path,
        {
            "a.md": "# A\n\nText.\n",
            "copy.txt": "A\n=\n\nOther text.\n",
            "copy/a.md": "# A\n\nText.   \n",
            "generated.md": "<!-- -->\n\nThis page is automatically generated.\n",
            "broken.pdf": b"%PDF",
            "notes.xyz": "a",
            "scan.pdf": scan,
            "scans.pdf": only_scans,
        },
    )
    corpus = corpus_of(folder)
    assert corpus.left_out == {
        "the text of another document": 1,
        "generated files": 1,
        "unreadable": 1,
        "type .xyz has no reader": 1,
        "no page has text": 1,
    }
    reasons = {file.name: file.reason for file in corpus.left_out_files}
    assert reasons["broken.pdf"].startswith("not a readable PDF file")
    assert corpus.unreadable == 1
    assert corpus.gaps == 3
    assert [gap.name for gap in corpus.first_gaps] == [
        "scan.pdf, page 2",
        "scans.pdf, page 1",
        "scans.pdf, page 2",
    ]
    assert {chunk.document for chunk in corpus.chunks} == {"a.md", "copy.txt", "scan.pdf"}


def test_blocks_of_many_documents_are_boilerplate(tmp_path: Path) -> None:
    notice = "Call us  at any time."
    folder = folder_of(
        tmp_path, {f"{n}.md": f"# Part {n}\n\nText {n}.\n\n{notice}\n" for n in range(3)}
    )
    corpus = corpus_of(folder)
    assert corpus.boilerplate == 3
    assert [chunk.text for chunk in corpus.chunks] == ["Text 0.", "Text 1.", "Text 2."]


def test_documents_contribute_in_turns_under_the_limit(tmp_path: Path) -> None:
    long = "".join(f"# Part {n}\n\nText {n}.\n\n" for n in range(20))
    folder = folder_of(tmp_path, {"a.md": long, "b.md": "# B\n\nText.\n", "c.md": long + "More.\n"})
    corpus = corpus_of(folder, most_chunks=9)
    assert (corpus.chunks_found, len(corpus.chunks)) == (41, 9)
    assert [chunk.document[0] for chunk in corpus.chunks] == [*"aaaa", "b", *"cccc"]


def test_the_same_title_twice_is_told_apart_by_the_name(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        {
            "a/README.md": "## Use\n\nSwitch it on.\n",
            "b/README.md": "## Use\n\nOpen the lid.\n",
            "c.md": "# Larkspur\n\nText.\n",
        },
    )
    titles = [chunk.title for chunk in corpus_of(folder).chunks]
    assert titles == ["Use (a/README.md)", "Use (b/README.md)", "Larkspur"]


def test_the_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.md": "# A\n\nText.\n", "b.md": "# B\n\nText.\n"})
    digest = corpus_of(folder).digest
    assert corpus_of(folder).digest == digest
    (folder / "b.md").rename(folder / "c.md")
    assert corpus_of(folder).digest != digest


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.md": "# A\n\nText.\n"})

    def read(path: Path) -> SourceDocument:
        document = read_document(path)
        path.write_text("# A\n\nOther.\n")
        return document

    with pytest.raises(CommandRefused, match="was changed while it was read"):
        read_corpus(find_files(folder), read, 10, lambda _: None)
