"""The messages of webhooks: signatures of the specification, content, back-off, and the file."""

import base64
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
import yaml
from standardwebhooks import Webhook

from services.registry.webhooks.endpoints import VARIABLE, read_endpoints
from services.registry.webhooks.messages import (
    MAX_ATTEMPTS,
    EventType,
    event_type,
    message_body,
    message_id,
    next_delay,
    signed_headers,
)
from shared.errors import SettingsError

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
URL = "https://chat.example/hooks/a-token-in-the-path"


def test_signature_is_that_of_the_reference_library() -> None:
    """The values of the reference libraries' own tests."""
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        at,
        b'{"test": 2432232314}',
        [base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
def test_both_secrets_verify_during_a_rotation(secret: str) -> None:
    keys = [base64.b64decode(text.removeprefix("whsec_")) for text in (SECRET, OTHER_SECRET)]
    body = b'{"type":"model.held"}'
    headers = signed_headers("msg_1", datetime.now(UTC), body, keys)
    assert Webhook(secret).verify(body, headers) == {"type": "model.held"}


@pytest.mark.parametrize(
    ("action", "actor", "expected"),
    [
        ("challenge", "registry", "verdict.promoted"),
        ("set_aside", "registry", "verdict.promoted"),
        ("rejected", "registry", "verdict.rejected"),
        ("withdraw", "registry", "verdict.rejected"),
        ("withdraw", "canary", "canary.withdrawn"),
        ("promote", "canary", "champion.promoted"),
        ("roll_back", "monitor", "champion.rolled_back"),
        ("hold", "operator", "model.held"),
        ("release", "operator", "model.released"),
        ("found", "registry", None),
        ("refused", "operator", None),
        ("remove", "retention", None),
    ],
)
def test_event_of_an_audit_action(action: str, actor: str, expected: str | None) -> None:
    assert event_type(action, actor) == expected


def test_body_has_no_evidence_but_the_run() -> None:
    entry = {
        "number": 7,
        "at": datetime(2026, 7, 1, 12, 0, tzinfo=UTC),
        "model": "support",
        "actor": "registry",
        "operator": None,
        "from": "v1",
        "to": "v2",
        "reason": "bessere Antworten für alle",
        "evidence": {"run_id": "r2", "batch_id": "b2", "verdict": {"decision": "promote"}},
    }
    assert json.loads(message_body("champion.promoted", entry)) == {
        "type": "champion.promoted",
        "timestamp": "2026-07-01T12:00:00+00:00",
        "data": {
            "number": 7,
            "model": "support",
            "version": "v2",
            "previous": "v1",
            "run_id": "r2",
            "batch_id": "b2",
            "actor": "registry",
            "operator": None,
            "reason": "bessere Antworten für alle",
        },
    }
    assert message_id("ab" * 32) == "msg_" + "ab" * 16


def test_delays_grow_up_to_a_limit_and_end() -> None:
    delays = [next_delay(attempts) for attempts in range(1, MAX_ATTEMPTS + 1)]
    assert delays.pop() is None
    seconds = [delay.total_seconds() for delay in delays if delay is not None]
    assert seconds[:3] == [5, 20, 80]
    assert seconds == sorted(seconds)
    assert timedelta(hours=24) < timedelta(seconds=sum(seconds)) < timedelta(hours=26)


def write(folder: Path, *endpoints: dict[str, object], text: str | None = None) -> Path:
    path = folder / "webhooks.yaml"
    path.write_text(text if text is not None else yaml.safe_dump({"webhooks": list(endpoints)}))
    return path


def test_file_selects_events_and_models(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"name": "all", "url": URL, "secret": SECRET},
        {
            "name": "some",
            "url": "http://127.0.0.1:9/x",
            "secret": SECRET,
            "previous_secret": OTHER_SECRET,
            "events": ["model.held"],
            "models": ["support"],
        },
    )
    every, some = read_endpoints(path, ["support", "sales"])
    assert all(every.wants(event, "sales") for event in get_args(EventType))
    assert some.wants("model.held", "support")
    assert not some.wants("model.held", "sales")
    assert not some.wants("model.released", "support")
    assert some.keys == [b"s" * 32, b"o" * 32]
    assert SECRET not in repr(every)
    assert URL not in repr(every)
    assert read_endpoints(None, []) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"url": "ftp://chat.example"}, "webhooks.0.url: .*http or https"),
        ({"url": "https://user:password@chat.example"}, "without user and password"),
        ({"url": "https:///x"}, "http or https"),
        ({"secret": "whsec_c2hvcnQ="}, "openssl rand -base64 32"),
        ({"secret": "not base64"}, "openssl rand -base64 32"),
        ({"name": "a name"}, "webhooks.0.name"),
        ({"events": ["model.exploded"]}, "webhooks.0.events"),
        ({"models": ["another"]}, "undeclared models: another"),
        ({"headers": {}}, "webhooks.0.headers"),
    ],
)
def test_invalid_endpoint_names_its_field_and_no_secret(
    tmp_path: Path, change: dict[str, object], found: str
) -> None:
    endpoint: dict[str, object] = {"name": "chat", "url": URL, "secret": SECRET}
    with pytest.raises(SettingsError, match=found) as raised:
        read_endpoints(write(tmp_path, endpoint | change), ["support"])
    assert str(raised.value).startswith(VARIABLE)
    for text in (SECRET, URL, "password@", "c2hvcnQ"):
        assert text not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "the file"),
        ("- 1\n", "the file"),
        ("webhooks: {", "line 1: expected YAML or JSON"),
        ("[" * 20_000, "expected YAML or JSON"),
    ],
)
def test_file_of_another_form_is_refused(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(SettingsError, match=found):
        read_endpoints(write(tmp_path, text=text), ["support"])
    with pytest.raises(SettingsError, match="readable file"):
        read_endpoints(tmp_path / "missing.yaml", ["support"])


def test_names_are_unique(tmp_path: Path) -> None:
    endpoint: dict[str, object] = {"name": "chat", "url": URL, "secret": SECRET}
    with pytest.raises(SettingsError, match="chat is used more than once"):
        read_endpoints(write(tmp_path, endpoint, endpoint), ["support"])


def test_invalid_file_stops_the_registry_at_start(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "support.yaml").write_text(
        "model: support\nbase: {training: base, serving: base/model.gguf}\n"
    )
    path = write(tmp_path, {"name": "chat", "url": URL, "secret": "short"})
    settings = {
        "RATCHET_WEBHOOKS_FILE": str(path),
        "RATCHET_MODELS": str(tmp_path / "models"),
        "RATCHET_DATABASE": f"sqlite:///{tmp_path}/registry.db",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "services.registry"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "RATCHET_WEBHOOKS_FILE" in line
    assert "webhooks.0.secret" in line
