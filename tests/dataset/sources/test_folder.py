"""The files of a folder, and the reasons to leave some out."""

import os
import shutil
from pathlib import Path

import pytest

from services.dataset.sources import folder as folder_of_documents
from services.dataset.sources.folder import find_files
from shared.errors import CommandRefused

DOCUMENTS = Path(__file__).parent / "documents"


def test_files_are_in_order_with_reasons(tmp_path: Path) -> None:
    folder = shutil.copytree(DOCUMENTS, tmp_path / "documents")
    (folder / ".git").mkdir()
    (folder / ".git" / "notes.md").write_text("a")
    (folder / "link.md").symlink_to(folder / "guides" / "faq.html")
    (folder / "loop").symlink_to(folder)
    (folder / "style.min.html").write_text("a")
    (folder / "picture.PNG").write_bytes(b"a")
    found = {file.name: file.left_out for file in find_files(folder)}
    assert found == {
        ".git/": "hidden",
        "LICENSE.txt": "a licence",
        "guides/faq.html": None,
        "guides/larkspur-manual.md": None,
        "guides/release-notes.txt": None,
        "link.md": "a link",
        "loop": "a link",
        "meetings/support-call.vtt": None,
        "meetings/team-meeting.txt": None,
        "node_modules/": "third-party files",
        "package-lock.json": "generated files",
        "picture.PNG": "type .png has no reader",
        "style.min.html": "generated files",
    }


def test_one_file_is_a_folder_of_one() -> None:
    path = DOCUMENTS / "guides" / "faq.html"
    assert [(file.name, file.path) for file in find_files(path)] == [("faq.html", path)]


def test_a_name_that_is_not_utf_8_is_left_out(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.md")).write_text("a")
    (tmp_path / os.fsdecode(b"b\xff")).mkdir()
    (tmp_path / os.fsdecode(b"b\xff") / "c.md").write_text("a")
    found = {file.name: file.left_out for file in find_files(tmp_path)}
    assert found == {
        "a\\udcff.md": "a name that is not UTF-8",
        "b\\udcff/": "a name that is not UTF-8",
    }


def test_third_party_files_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_of_documents, "MAX_FILES", 3)
    (tmp_path / "node_modules").mkdir()
    for n in range(5):
        (tmp_path / "node_modules" / f"{n}.md").write_text("a")
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("a")
    assert len(list(find_files(tmp_path))) == 3
    (tmp_path / "c.md").write_text("a")
    with pytest.raises(CommandRefused, match="more than 3 files; name a smaller folder"):
        list(find_files(tmp_path))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandRefused, match="neither a folder nor a file"):
        list(find_files(tmp_path / "none"))
