"""Database passwords in a file, such as a mounted secret."""

from pathlib import Path

import pytest

from services.registry.store.database import Database
from shared.errors import SettingsError

URL = "postgresql+psycopg://ratchet@postgres:5432/ratchet"


def test_password_is_read_from_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss:word/\n")
    database = Database(URL, file)
    assert database._engine.url.password == "p@ss:word/"
    assert "p@ss" not in str(database._engine.url)
    database.close()


def test_missing_or_empty_password_file_stops_start(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"RATCHET_DATABASE_PASSWORD_FILE: expected a file with a password, .*nowhere",
    ):
        Database(URL, tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match=r"RATCHET_DATABASE_PASSWORD_FILE: .*empty is empty"):
        Database(URL, tmp_path / "empty")
