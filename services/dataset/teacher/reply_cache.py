"""Replies of a teacher on disk, by request, so that an interrupted build continues."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.errors import StorageUnavailable
from shared.events import FrozenModel
from shared.storage.object_store import canonical_json


class TeacherReply(FrozenModel):
    """A reply and the number of tokens of prompt and reply together."""

    text: str
    tokens: int


class ReplyCache:
    """Replies in a folder, one file for each request. Files are complete or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, request: Mapping[str, Any]) -> TeacherReply | None:
        """Return the reply to a request, None without one, or if its file is damaged."""
        try:
            return TeacherReply.model_validate_json(self._path(request).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        except OSError as error:
            raise StorageUnavailable(_advice(self._folder, "read", error)) from error

    def put(self, request: Mapping[str, Any], reply: TeacherReply) -> None:
        """Store a reply. Raises StorageUnavailable."""
        path = self._path(request)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(reply.model_dump_json(), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise StorageUnavailable(_advice(self._folder, "written", error)) from error

    def _path(self, request: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(canonical_json(dict(request))).hexdigest()
        return self._folder / name[:2] / f"{name}.json"


def _advice(folder: Path, verb: str, error: OSError) -> str:
    return (
        f"{folder} cannot be {verb}: {error.strerror or error}; "
        "RATCHET_TEACHER_CACHE names another folder"
    )
