"""A database's password may lie in a file, such as a mounted secret."""

from pathlib import Path

import pytest

from services.registry.store.database import Database
from shared.errors import SettingsError

URL = "postgresql+psycopg://ratchet@postgres:5432/ratchet"


def test_the_password_of_the_file_is_the_one_that_is_used(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss:word/\n")
    database = Database(URL, file)
    assert database._engine.url.password == "p@ss:word/"
    assert "p@ss" not in str(database._engine.url)
    database.close()


def test_a_file_that_is_not_there_or_empty_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"RATCHET_DATABASE_PASSWORD_FILE: expected a file with a password, .*nowhere",
    ):
        Database(URL, tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match=r"RATCHET_DATABASE_PASSWORD_FILE: .*empty is empty"):
        Database(URL, tmp_path / "empty")
