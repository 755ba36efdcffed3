"""Keys of uploaded files in the object store, by model and day."""

import re
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath

KEPT = timedelta(days=7)
"""Time after which an upload without a request is deleted."""

_KEY = re.compile(r"uploads/[^/]+/\d{4}-\d{2}-\d{2}/[0-9a-f]{32}")


def uploads_folder(model: str) -> str:
    return f"uploads/{model}"


def upload_key(model: str, upload_id: str, now: datetime) -> str:
    """Key of an upload; `upload_id` are 32 hexadecimal digits."""
    return f"{uploads_folder(model)}/{now:%Y-%m-%d}/{upload_id}"


def is_upload_of(model: str, key: str) -> bool:
    """Return whether a key is that of an upload of a model."""
    return bool(_KEY.fullmatch(key)) and key.startswith(f"{uploads_folder(model)}/")


def is_expired(key: str, now: datetime) -> bool:
    """Return whether an upload is older than `KEPT`."""
    return date.fromisoformat(PurePosixPath(key).parent.name) < (now - KEPT).date()
