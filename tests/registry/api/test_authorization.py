"""Authorization by token, by local address and by browser sign-in."""

import re
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from starlette.routing import Route

from services.registry.api import authorization
from services.registry.api.authorization import COOKIE, PUBLIC_PATHS
from services.registry.api.current_tokens import CurrentTokens
from services.registry.pages.sign_in import safe_path
from services.registry.settings import RegistrySettings
from shared.auth.bearer_tokens import parse_tokens
from shared.config.settings import read_settings
from shared.errors import SettingsError
from shared.logs import configure
from tests.registry.deploy.test_deployment import Stage
from tests.support.credentials import OPERATE, OPERATOR, READ, READER, TOKENS
from tests.support.registry_events import DatabaseFixture
from tests.support.service_process import ServiceProcess

LOG = configure("test", "error", "text")
HERE, ELSEWHERE = "http://127.0.0.1:8080", "http://registry.example"
ROLLBACK = "/api/models/support/rollback"
WHY = {"reason": "worse in use"}
BEFORE = {"release": "hold", "resume": "pause"}
"""Change without which a change has no effect."""
AFTER = {"hold": "release", "release": "hold", "pause": "resume", "resume": "pause"}
"""Change that has an effect after a change."""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A registry on SQLite only: authorization does not depend on the database."""
    stage = Stage(DatabaseFixture(f"sqlite:///{tmp_path}/registry.db"), tmp_path)
    stage.promote("r1")
    return stage


def client(
    stage: Stage,
    base: str = HERE,
    peer: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app, client=(peer, 50_000)),
        base_url=base,
        headers=headers,
    )


@pytest.mark.parametrize(
    ("base", "peer", "more", "status"),
    [
        (HERE, "127.0.0.1", {}, 200),
        ("http://localhost:8080", "::1", {}, 200),
        ("http://[::1]:8080", "::1", {}, 200),
        (HERE, "10.0.0.7", {}, 401),
        # A page of another site whose host name resolves to this machine (DNS rebinding).
        ("http://rebound.example", "127.0.0.1", {}, 401),
        # A proxy on this machine forwards requests of other machines.
        (HERE, "127.0.0.1", {"X-Forwarded-For": "10.0.0.7"}, 401),
        (HERE, "127.0.0.1", {"Host": "[::1"}, 401),
        (ELSEWHERE, "10.0.0.7", READER, 200),
        (ELSEWHERE, "10.0.0.7", OPERATOR, 200),
        # A wrong token is refused like a missing one, even from this machine.
        (HERE, "127.0.0.1", {"Authorization": "Bearer something-else-altogether"}, 401),
        (HERE, "127.0.0.1", {"Authorization": f"Basic {READ}"}, 401),
    ],
)
async def test_local_requests_and_tokens_may_read(
    stage: Stage, base: str, peer: str, more: dict[str, str], status: int
) -> None:
    async with client(stage, base, peer) as http:
        answer = await http.get("/api/models", headers=more)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="ratchet"')
        assert answer.headers["content-type"] == "application/problem+json"
        assert ("invalid_token" in answer.headers["www-authenticate"]) == ("Authorization" in more)


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [({}, 401, "Bearer realm"), (READER, 403, "insufficient_scope"), (OPERATOR, 200, "")],
)
async def test_only_operators_move_the_champion(
    stage: Stage, headers: dict[str, str], status: int, challenge: str
) -> None:
    before = stage.registry_db.champion
    stage.registry.deployer._targets = {}  # nothing to wait for
    async with client(stage, headers=headers) as http:
        answer = await http.post(ROLLBACK, json=WHY)
    assert answer.status_code == status
    assert challenge in answer.headers.get("www-authenticate", "")
    assert (stage.registry_db.champion == before) == (status != 200)


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("promote", "promote"),
        ("rollback", "roll_back"),
        ("hold", "hold"),
        ("release", "release"),
        ("pause", "pause"),
        ("resume", "resume"),
    ],
)
async def test_history_names_the_owner_of_the_token(stage: Stage, path: str, action: str) -> None:
    tokens = parse_tokens("operate ada the-token-of-ada-alone\n", "tests") | TOKENS
    authorization.install(stage.app, lambda: tokens, require_tokens=False)
    stage.registry.deployer._targets = {}  # nothing to wait for
    target = {"version": stage.registry_db.aliases.previous} if path == "promote" else {}
    ada = {"Authorization": "Bearer the-token-of-ada-alone"}
    async with client(stage, headers=ada) as http:
        if path in BEFORE:
            before = await http.post(f"/api/models/support/{BEFORE[path]}", json=WHY)
            assert before.status_code == 200
        answer = await http.post(f"/api/models/support/{path}", json=WHY | target)
        assert answer.status_code == 200, answer.text
        model = (await http.get("/api/models/support")).json()
        hold, pause = model["hold"], model["pause"]
        newest = (await http.get("/api/models/support/history")).json()["items"][0]
    assert (newest["action"], newest["actor"], newest["operator"]) == (action, "operator", "ada")
    if path == "hold":
        assert (hold["actor"], hold["operator"]) == ("operator", "ada")
    if path == "pause":
        assert (pause["operator"], pause["reason"]) == ("ada", WHY["reason"])
    async with client(stage, headers=OPERATOR) as http:
        other = AFTER.get(path, "rollback")
        assert (await http.post(f"/api/models/support/{other}", json=WHY)).status_code == 200
        newest = (await http.get("/api/models/support/history")).json()["items"][0]
    assert (newest["actor"], newest["operator"]) == ("operator", None)


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (READER, 200)])
async def test_required_tokens_are_required_here_too(
    stage: Stage, headers: dict[str, str], status: int
) -> None:
    authorization.install(stage.app, lambda: TOKENS, require_tokens=True)
    async with client(stage, headers=headers) as http:
        answer = await http.get("/api/models")
        assert (await http.get("/healthz")).status_code == 200
    assert answer.status_code == status
    if status == 401:
        assert "machine" not in answer.json()["detail"]


async def test_routes_except_public_ones_need_a_token(stage: Stage) -> None:
    """Includes the routes of the pages, also those added later."""
    parameters = {
        "model": "support",
        "version": "v0",
        "version_id": "v0",
        "run_id": "r1",
        "alias": "champion",
    }
    paths = set()
    async with client(stage, ELSEWHERE, "10.0.0.7") as http:
        for route in iter_route_contexts(stage.app.routes):
            if not isinstance(route.original_route, Route):
                continue  # static files, equal for all users
            path, methods = str(route.path), set(route.methods or ())
            for method in methods - {"HEAD"}:
                answer = await http.request(
                    method,
                    re.sub(r"{(\w+)(:\w+)?}", lambda match: parameters.get(match[1], "1"), path),
                    json=WHY,
                )
                paths.add(path)
                assert (answer.status_code == 401) != (path in PUBLIC_PATHS), (
                    method,
                    path,
                    answer.status_code,
                )
    assert {
        "/",
        "/api/models",
        "/api/models/{model}/promote",
        "/api/runs/{run_id}",
        "/metrics",
        "/sign-in",
    } <= paths


async def test_browser_sign_in_move_and_sign_out(stage: Stage) -> None:
    stage.registry.deployer._targets = {}
    before = stage.registry_db.champion
    async with client(stage, ELSEWHERE, "10.0.0.7", {"Origin": ELSEWHERE}) as browser:
        redirect = await browser.get("/?a=b", headers={"Accept": "text/html"})
        assert (redirect.status_code, redirect.headers["location"]) == (
            303,
            "/sign-in?onward=%2F%3Fa%3Db",
        )
        form = await browser.get(redirect.headers["location"])
        assert '<input type="hidden" name="onward" value="/?a=b">' in form.text
        assert "frame-ancestors 'none'" in form.headers["content-security-policy"]

        wrong = await browser.post("/sign-in", data={"token": "not-a-token-of-ours", "onward": "/"})
        assert (wrong.status_code, COOKIE in browser.cookies) == (401, False)
        assert "not valid here" in wrong.text

        welcome = await browser.post("/sign-in", data={"token": OPERATE, "onward": "/?a=b"})
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/?a=b")
        cookie = welcome.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert "Secure" not in cookie, "the page came over plain http"
        assert (await browser.get("/")).status_code == 200

        for origin in ("http://evil.example", "null", ""):
            refused = await browser.post(ROLLBACK, json=WHY, headers={"Origin": origin})
            assert refused.status_code == 403, origin
        assert stage.registry_db.champion == before
        assert (await browser.post(ROLLBACK, json=WHY)).status_code == 200
        assert stage.registry_db.champion != before

        assert (await browser.post("/sign-out")).status_code == 303
        assert (await browser.get("/")).status_code == 401


async def test_cookie_is_secure_over_https_behind_proxy(stage: Stage) -> None:
    async with client(
        stage, ELSEWHERE, "10.0.0.7", {"Origin": "https://registry.example"}
    ) as browser:
        assert (
            "Secure" in (await browser.post("/sign-in", data={"token": READ})).headers["set-cookie"]
        )


async def test_cross_site_sign_in_is_refused(stage: Stage) -> None:
    async with client(stage) as browser:
        answer = await browser.post(
            "/sign-in", data={"token": OPERATE}, headers={"Origin": "http://evil.example"}
        )
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        large = await browser.post("/sign-in", content=b"x" * 100_000, headers={"Origin": HERE})
        assert (large.status_code, large.headers["content-type"]) == (
            413,
            "application/problem+json",
        )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/support?x=1", "/models/support?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_sign_in_redirects_to_this_registry_only(path: str, expected: str) -> None:
    assert safe_path(path) == expected


def test_changed_token_file_is_read_again(tmp_path: Path) -> None:
    """The file changes as Kubernetes renews secrets, by a replaced symbolic link. An invalid file
    keeps the previous tokens.
    """
    for name, text in (
        ("1", f"operate {OPERATE}\n"),
        ("2", f"read {READ}\n"),
        ("3", "operate short\n"),
    ):
        (tmp_path / name).write_text(text)
    link = tmp_path / "tokens"

    def mount(name: str) -> None:
        (tmp_path / "new").symlink_to(tmp_path / name)
        (tmp_path / "new").replace(link)

    mount("1")
    current = CurrentTokens(
        RegistrySettings(tokens_file=link, read_tokens=SecretStr("given-in-the-settings")), LOG
    )
    assert [current().role_of(token) for token in (OPERATE, READ, "given-in-the-settings")] == [
        "operate",
        None,
        "read",
    ]
    mount("2")
    assert [current().role_of(token) for token in (OPERATE, READ)] == [None, "read"]
    mount("3")
    assert [current().role_of(token) for token in (OPERATE, READ)] == [None, "read"]
    link.unlink()
    assert current().role_of(READ) == "read"
    mount("1")
    assert [current().role_of(token) for token in (OPERATE, READ)] == ["operate", None]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"operate_tokens": SecretStr("hunter2")}, "RATCHET_OPERATE_TOKENS"),
        ({"read_tokens": SecretStr("hunter2 a-token-that-is-right")}, "RATCHET_READ_TOKENS"),
        ({"tokens_file": Path("/nowhere/tokens")}, "RATCHET_TOKENS_FILE: /nowhere/tokens"),
    ],
)
def test_invalid_setting_stops_start_without_secrets(
    settings: dict[str, SecretStr | Path], names: str
) -> None:
    with pytest.raises(SettingsError, match=names) as error:
        CurrentTokens(RegistrySettings(**settings), LOG)  # type: ignore[arg-type]  # each has its own type
    assert "hunter2" not in str(error.value)


def test_settings_hide_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_OPERATE_TOKENS", OPERATE)
    settings = read_settings(RegistrySettings)
    assert settings.operate_tokens.get_secret_value() == OPERATE
    assert OPERATE not in repr(settings)


@pytest.mark.kafka
async def test_process_reloads_tokens_and_never_logs_them(broker: str, tmp_path: Path) -> None:
    """Tokens come from a mounted file and change with it; an invalid file stops the start."""
    model = f"m{uuid4().hex[:8]}"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model}.yaml").write_text(
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\n"
    )
    mounted = tmp_path / "tokens"
    mounted.write_text(f"operate {OPERATE}\n")
    own = {
        "RATCHET_DATABASE": f"sqlite:///{tmp_path}/registry.db",
        "RATCHET_TOKENS_FILE": str(mounted),
    }
    registry = ServiceProcess("registry", broker, tmp_path, **own)
    await registry.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{registry.port}") as http:
            path = f"/api/models/{model}/rollback"
            assert (await http.get("/api/models")).status_code == 200
            assert (await http.post(path, json=WHY)).status_code == 401
            answer = await http.post(path, json=WHY, headers=OPERATOR)
            assert (answer.status_code, answer.json()["title"]) == (409, "no version to move to")
            mounted.write_text(f"operate the-token-that-came-after\nread {READ}\n")
            assert (await http.post(path, json=WHY, headers=OPERATOR)).status_code == 401
            assert (await http.post(path, json=WHY, headers=READER)).status_code == 403
    finally:
        registry.stop()
    assert "token file reloaded" in registry.log
    assert OPERATE not in registry.log

    mounted.write_text("operate hunter2\n")
    wrong = ServiceProcess("registry", broker, tmp_path, **own)
    wrong.launch()
    assert await wrong.wait_for_exit() != 0
    assert f"RATCHET_TOKENS_FILE: {mounted}, line 1: expected" in wrong.log
    assert "hunter2" not in wrong.log
