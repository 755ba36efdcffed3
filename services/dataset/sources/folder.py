"""Files of a folder of documents: which are read, and which are left out with a reason."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from services.dataset.sources.reading import SUFFIXES
from shared.errors import CommandRefused

MAX_FILES = 20_000

_FOLDERS = {
    **dict.fromkeys(
        ("node_modules", "bower_components", "vendor", "third_party", "site-packages"),
        "third-party files",
    ),
    **dict.fromkeys(
        ("__pycache__", "build", "dist", "target", "obj", "coverage", "htmlcov"), "generated files"
    ),
}
_LICENCE = re.compile(r"(licen[cs]es?|copying|notice|copyright|third.?party.?notices)\b", re.I)
_GENERATED = re.compile(r"\.min\.|[-.]lock\b|\.generated\.|^(package-lock|pnpm-lock)", re.I)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the folder; `name` is its path there. `left_out` is the reason not to read it. A
    folder that is left out is one entry, and its name ends with a slash.
    """

    name: str
    path: Path
    left_out: str | None = None


def find_files(root: Path) -> Iterator[FoundFile]:
    """Yield the files below a folder, or one file, in the order of their names.

    Hidden files and links are left out, as are folders of third-party and generated files, licences
    and types that have no reader. Raises CommandRefused if there is no such folder, or it has too
    many files.
    """
    if root.is_file():
        yield FoundFile(root.name, root, _reason(root))
        return
    if not root.is_dir():
        raise CommandRefused(f"{root} is neither a folder nor a file")
    left = [root]
    seen = 0
    while left:
        path = left.pop()
        name = "" if path == root else path.relative_to(root).as_posix()
        reason = _reason(path) if name else None
        if reason is None and path.is_dir():
            left += reversed(_entries(path))
            continue
        seen += 1
        if seen > MAX_FILES:
            raise CommandRefused(_too_many(root))
        shown = name.encode(errors="backslashreplace").decode()
        is_folder = path.is_dir() and not path.is_symlink()
        yield FoundFile(f"{shown}/" if is_folder else shown, path, reason)


def _entries(folder: Path) -> list[Path]:
    try:
        entries = list(islice(folder.iterdir(), MAX_FILES + 1))
    except OSError as error:
        raise CommandRefused(f"{folder} cannot be read: {error.strerror or error}") from error
    if len(entries) > MAX_FILES:
        raise CommandRefused(_too_many(folder))
    return sorted(entries, key=lambda entry: entry.name)


def _too_many(folder: Path) -> str:
    return f"{folder} has more than {MAX_FILES:,} files; name a smaller folder"


def _reason(path: Path) -> str | None:
    """Return the reason to leave a file or a folder out, None for one to read."""
    if path.name.startswith("."):
        return "hidden"
    if path.is_symlink():
        return "a link"
    if any("\ud800" <= character <= "\udfff" for character in path.name):
        return "a name that is not UTF-8"
    if path.is_dir():
        return _FOLDERS.get(path.name)
    if not path.is_file():
        return "not a file"
    if _LICENCE.match(path.name):
        return "a licence"
    if _GENERATED.search(path.name):
        return "generated files"
    if path.suffix.lower() not in SUFFIXES:
        return f"type {path.suffix.lower()[:20] or 'unknown'} has no reader"
    return None
