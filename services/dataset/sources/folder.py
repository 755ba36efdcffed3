"""Files of a folder of documents: which are read, and which are left out with a reason."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
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
    """A file of the folder; `name` is its path there. `left_out` is the reason not to read it."""

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
        yield FoundFile(root.name, root, _reason(root.name, root))
        return
    if not root.is_dir():
        raise CommandRefused(f"{root} is neither a folder nor a file")
    for count, path in enumerate(_files(root)):
        if count == MAX_FILES:
            raise CommandRefused(f"{root} has more than {MAX_FILES:,} files; name a smaller folder")
        name = path.relative_to(root).as_posix()
        yield FoundFile(name, path, _reason(name, path))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files and links below a folder, without following links."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise CommandRefused(f"{folder} cannot be read: {error.strerror or error}") from error
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        else:
            yield entry


def _reason(name: str, path: Path) -> str | None:
    *folders, file = name.split("/")
    if any(part.startswith(".") for part in (*folders, file)):
        return "hidden"
    if reason := next((_FOLDERS[part] for part in folders if part in _FOLDERS), None):
        return reason
    if path.is_symlink():
        return "a link"
    if not path.is_file():
        return "not a file"
    if _LICENCE.match(file):
        return "a licence"
    if _GENERATED.search(file):
        return "generated files"
    if path.suffix.lower() not in SUFFIXES:
        return f"type {path.suffix.lower()[:20] or 'unknown'} has no reader"
    return None
