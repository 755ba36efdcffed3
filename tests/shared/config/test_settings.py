"""Settings: an error names the variable and the expected value."""

import pytest
from pydantic import ValidationError

from shared.config.settings import ServiceSettings, read_settings
from shared.errors import SettingsError


def test_defaults_need_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_LOG_LEVEL", raising=False)
    assert read_settings(ServiceSettings).log_level == "info"


def test_an_invalid_value_names_variable_and_expectation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RATCHET_LOG_LEVEL", "loud")
    with pytest.raises(
        SettingsError,
        match=r"RATCHET_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error', found "
        r"'loud'",
    ):
        read_settings(ServiceSettings)


def test_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(ServiceSettings)
    with pytest.raises(ValidationError):
        setattr(settings, "log_level", "debug")
