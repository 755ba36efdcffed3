"""Exit status and last line of a service's process."""

import pytest

from shared.errors import BusUnavailable, SettingsError
from shared.service.exit_status import exit_status


@pytest.mark.parametrize(
    ("error", "status"),
    [(SettingsError("RATCHET_X: no"), 2), (BusUnavailable("away"), 1), (OSError("port taken"), 1)],
)
def test_an_error_becomes_a_status_and_one_line(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert exit_status("dataset", fail) == status
    assert capsys.readouterr().err.startswith(f"dataset: {error}")


def test_a_clean_stop_is_zero_and_a_bug_propagates() -> None:
    def fault() -> None:
        raise ZeroDivisionError

    assert exit_status("dataset", lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        exit_status("dataset", fault)
