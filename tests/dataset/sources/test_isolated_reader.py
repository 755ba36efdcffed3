"""The reading process: files that exhaust or end it, and the files after them."""

import os
from pathlib import Path
from threading import Timer

import pytest

from services.dataset.sources.document import UnreadableDocument
from services.dataset.sources.isolated_reader import IsolatedReader
from services.dataset.sources.reading import read_document
from tests.support.documents import docx_with_document

DOCUMENTS = Path(__file__).parent / "documents"


def test_documents_are_the_same_as_without_a_process() -> None:
    with IsolatedReader() as reader:
        for path in sorted((DOCUMENTS / "guides").iterdir()):
            assert reader.read(path) == read_document(path)


def test_a_file_that_takes_too_long_has_a_reason(tmp_path: Path) -> None:
    """The process is stopped while it starts: no file is that slow to read."""
    with IsolatedReader(seconds=0.01) as reader, pytest.raises(UnreadableDocument) as raised:
        reader.read(DOCUMENTS / "guides" / "faq.html")
    assert "takes longer than 0.01 s to read" in str(raised.value)


def test_expanding_entities_do_not_exhaust_memory(tmp_path: Path) -> None:
    """Nine levels of ten references each, 10^9 copies of a text, in one small file."""
    entities = '<!ENTITY l0 "rain">' + "".join(
        f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)
    )
    document = (
        f"<?xml version='1.0'?><!DOCTYPE w [{entities}]>"
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        "<w:body><w:p><w:r><w:t>&l9;</w:t></w:r></w:p></w:body></w:document>"
    )
    path = tmp_path / "bomb.docx"
    path.write_bytes(docx_with_document(document.encode()))
    with IsolatedReader() as reader:
        with pytest.raises(UnreadableDocument):
            reader.read(path)
        assert reader.read(DOCUMENTS / "guides" / "faq.html").title == "Larkspur questions"


def test_the_next_file_gets_a_new_process(tmp_path: Path) -> None:
    """A pipe that nothing is written to keeps the process reading until it is killed."""
    os.mkfifo(tmp_path / "pipe.txt")
    with IsolatedReader() as reader:
        reader.read(DOCUMENTS / "guides" / "faq.html")
        assert reader._process is not None
        killer = Timer(0.5, reader._process.kill)
        killer.start()
        with pytest.raises(UnreadableDocument) as raised:
            reader.read(tmp_path / "pipe.txt")
        killer.join()
        assert "ended the process that read it (status -9)" in str(raised.value)
        assert reader.read(DOCUMENTS / "guides" / "faq.html").title == "Larkspur questions"


def test_a_process_that_ended_between_files_is_replaced() -> None:
    with IsolatedReader() as reader:
        reader.read(DOCUMENTS / "guides" / "faq.html")
        assert reader._process is not None
        reader._process.kill()
        reader._process.wait()
        assert reader.read(DOCUMENTS / "guides" / "faq.html").title == "Larkspur questions"


def test_a_path_with_line_breaks_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.txt"
    path.write_text("Rain.")
    with IsolatedReader() as reader:
        assert reader.read(path).blocks[0].text == "Rain."
