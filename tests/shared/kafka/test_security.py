"""TLS and authentication of Kafka clients: valid combinations of settings, and a real broker that
requires both.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from typer.testing import CliRunner

from ratchet.cli.commands import app
from ratchet.cli.doctor import check_broker as broker_check
from ratchet.kafka_admin.topics import apply_topics, existing_topics, wait_for_group_coordinator
from shared.config.settings import KafkaSettings, ServiceSettings, read_settings
from shared.errors import BusUnavailable, SettingsError
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.security import (
    PLAINTEXT,
    Security,
    connection_error,
    kafka_security,
    kafka_variables,
)
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.topics import TOPICS, TRAINING_PROGRESS
from tests.support.secured_broker import (
    OPERATOR,
    PASSWORD,
    Authority,
    SecuredBroker,
    secured_broker,
)

CLIENTS = {"AIOKafkaProducer", "AIOKafkaConsumer", "AIOKafkaAdminClient"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SecuredBroker:
    """Certificates and a password that nothing listens for."""
    return secured_broker(tmp_path_factory.mktemp("files"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in kafka_variables():
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def said(environment: pytest.MonkeyPatch, settings: dict[str, str]) -> Security:
    for name, value in settings.items():
        environment.setenv(name, value)
    return kafka_security(read_settings(KafkaSettings))


def test_without_settings_the_connection_is_plaintext(environment: pytest.MonkeyPatch) -> None:
    assert said(environment, {}) == PLAINTEXT
    assert PLAINTEXT.options == {}


def test_a_ca_alone_turns_tls_on(environment: pytest.MonkeyPatch, files: SecuredBroker) -> None:
    options = said(environment, {"RATCHET_KAFKA_CA": str(files.authority)}).options
    assert options["security_protocol"] == "SSL"
    assert options["ssl_context"].check_hostname


def test_the_password_is_not_in_the_repr(
    environment: pytest.MonkeyPatch, files: SecuredBroker
) -> None:
    security = said(environment, files.as_user())
    assert (security.options["security_protocol"], security.options["sasl_mechanism"]) == (
        "SASL_SSL",
        "SCRAM-SHA-512",
    )
    assert (security.options["sasl_plain_username"], security.options["sasl_plain_password"]) == (
        OPERATOR,
        PASSWORD,
    )
    assert PASSWORD not in repr(security)
    assert PASSWORD not in repr(read_settings(ServiceSettings))


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        (
            "RATCHET_KAFKA_CERTIFICATE",
            "RATCHET_KAFKA_CERTIFICATE: required because RATCHET_KAFKA_KEY is set",
        ),
        (
            "RATCHET_KAFKA_KEY",
            "RATCHET_KAFKA_KEY: required because RATCHET_KAFKA_CERTIFICATE is set",
        ),
        (
            "RATCHET_KAFKA_USERNAME",
            "RATCHET_KAFKA_USERNAME: required because RATCHET_KAFKA_PASSWORD_FILE is set",
        ),
        (
            "RATCHET_KAFKA_PASSWORD_FILE",
            "RATCHET_KAFKA_PASSWORD_FILE: required because RATCHET_KAFKA_USERNAME is set",
        ),
        (
            "RATCHET_KAFKA_CA",
            "RATCHET_KAFKA_CA: required because RATCHET_KAFKA_(CERTIFICATE|USERNAME) is set",
        ),
    ],
)
def test_a_missing_setting_is_named(
    environment: pytest.MonkeyPatch, files: SecuredBroker, left_out: str, named: str
) -> None:
    whole = files.as_user() | files.as_certificate()
    assert said(environment, whole).context is not None
    environment.delenv(left_out)
    with pytest.raises(SettingsError, match=named):
        kafka_security(read_settings(KafkaSettings))


def test_an_unusable_file_is_named(
    environment: pytest.MonkeyPatch, files: SecuredBroker, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    for name in sorted(kafka_variables() - {"RATCHET_KAFKA_USERNAME"}):
        for content in (None, b"", b"\xff no PEM \n"):
            wrong.unlink(missing_ok=True)
            if content is not None:
                wrong.write_bytes(content)
            with pytest.raises(
                SettingsError, match=f"RATCHET_KAFKA_.*: expected .*{wrong}"
            ) as found:
                said(environment, files.as_user() | files.as_certificate() | {name: str(wrong)})
            assert "no PEM" not in str(found.value)


def test_an_encrypted_or_foreign_key_is_refused(
    environment: pytest.MonkeyPatch, files: SecuredBroker, tmp_path: Path
) -> None:
    _, other = Authority(tmp_path, "other").issue("stranger")
    encrypted = tmp_path / "encrypted.key"
    plain = load_pem_private_key(files.certificates[OPERATOR][1].read_bytes(), None)
    encrypted.write_bytes(
        plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    for key in (other, encrypted):
        with pytest.raises(
            SettingsError, match=f"RATCHET_KAFKA_KEY: expected .* unencrypted key .*{key}"
        ):
            said(environment, files.as_certificate() | {"RATCHET_KAFKA_KEY": str(key)})


def test_every_kafka_client_gets_the_security_options() -> None:
    """A client that is created without them would connect to the plaintext port."""
    # The demo has a broker of its own, which accepts every local client.
    sources = [
        ast.parse(path.read_text())
        for folder in ("shared", "services", "ratchet")
        for path in Path(folder).rglob("*.py")
        if Path("ratchet/demo") not in path.parents
    ]
    names = CLIENTS | {name for source in sources for name in takes_security(source)}
    assert {"KafkaProducer", "KafkaConsumer", "apply_topics", "create_app"} <= names
    calls = [
        ast.unparse(node)
        for source in sources
        for node in ast.walk(source)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in names
        and ("bootstrap_servers" in ast.unparse(node) or node.func.id == "create_app")
    ]
    assert len(calls) >= 30, calls
    assert [call for call in calls if "security" not in call] == []


def takes_security(source: ast.Module) -> Iterator[str]:
    """Yield the names of functions and classes that take the argument `security`."""
    for node in ast.walk(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _has_security(node):
            yield node.name
        if isinstance(node, ast.ClassDef) and any(
            isinstance(method, ast.FunctionDef)
            and method.name == "__init__"
            and _has_security(method)
            for method in node.body
        ):
            yield node.name


def _has_security(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = (*function.args.args, *function.args.kwonlyargs)
    return any(argument.arg == "security" for argument in arguments)


@pytest.mark.kafka
@pytest.mark.parametrize("way", ["as_user", "as_certificate"])
async def test_the_bus_connects_with_scram_and_with_certificates(
    environment: pytest.MonkeyPatch, doors: SecuredBroker, way: str
) -> None:
    at, security = (
        (doors.scram if way == "as_user" else doors.mutual),
        said(environment, getattr(doors, way)()),
    )
    await apply_topics(at, security=security)
    await wait_for_group_coordinator(at, security=security)
    assert {topic.name for topic in TOPICS} <= await existing_topics(at, security)
    assert (await broker_check(at, security)).state == "ok"
    assert await connection_error(at, security) == ""
    producer = KafkaProducer(at, security)
    await producer.start()
    await producer.send(TRAINING_PROGRESS, way.encode(), b"said", [])
    await producer.stop()
    consumer = KafkaConsumer(at, f"through-{way}", [TRAINING_PROGRESS], security=security)
    await consumer.start()
    async for record in consumer.records():
        await consumer.commit(record)
        if record.key == way.encode():
            consumer.stop_after_current()
    await consumer.stop()
    reader, ends = (
        KafkaTopicReader(at, [TRAINING_PROGRESS], security),
        EndOffsets(at, security=security),
    )
    await reader.start()
    await ends.start()
    try:
        assert way.encode() in [record.key for record in await reader.read_new()]
        assert await ends.lag({(TRAINING_PROGRESS, number): None for number in range(4)})
    finally:
        await reader.stop()
        await ends.stop()


@pytest.mark.kafka
async def test_a_refused_client_gets_the_reason(
    environment: pytest.MonkeyPatch, doors: SecuredBroker, tmp_path: Path
) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("tr0ub4dor")
    stranger = Authority(tmp_path, "stranger")
    certificate, key = stranger.issue(OPERATOR)
    unknown = {"RATCHET_KAFKA_CERTIFICATE": str(certificate), "RATCHET_KAFKA_KEY": str(key)}
    refused = [
        (doors.scram, {}, "if the broker requires TLS, set RATCHET_KAFKA_CA"),
        (
            doors.scram,
            doors.as_user() | {"RATCHET_KAFKA_PASSWORD_FILE": str(wrong)},
            "invalid credentials.*RATCHET_KAFKA_PASSWORD_FILE",
        ),
        (
            doors.scram,
            doors.as_user() | {"RATCHET_KAFKA_CA": str(stranger.file)},
            "CERTIFICATE_VERIFY_FAILED.*RATCHET_KAFKA_CA",
        ),
        (
            doors.mutual,
            doors.as_certificate() | unknown,
            "check that the broker accepts RATCHET_KAFKA_CERTIFICATE",
        ),
        (
            doors.scram,
            {"RATCHET_KAFKA_CA": str(doors.authority)},
            "or set a user .RATCHET_KAFKA_USERNAME.",
        ),
        (doors.open, doors.as_user(), "check that the broker uses TLS on this port"),
    ]
    for at, settings, why in refused:
        with pytest.MonkeyPatch.context() as patch:
            security = said(patch, settings)
        with pytest.raises(BusUnavailable, match=why) as error:
            await KafkaProducer(at, security).start()
        assert "tr0ub4dor" not in str(error.value)
        with pytest.raises(BusUnavailable, match=why):
            await existing_topics(at, security)
        assert (await broker_check(at, security)).state == "problem"


@pytest.mark.kafka
def test_commands_use_the_security_of_the_environment(
    environment: pytest.MonkeyPatch, doors: SecuredBroker, tmp_path: Path
) -> None:
    environment.setenv("RATCHET_BOOTSTRAP_SERVERS", doors.scram)
    for name, value in doors.as_user().items():
        environment.setenv(name, value)
    applied = CliRunner().invoke(app, ["topics", "apply", "--json"])
    assert applied.exit_code == 0, applied.output
    (tmp_path / "password").write_text("tr0ub4dor")
    command = [sys.executable, "-m", "ratchet", "topics", "apply"]
    settings = os.environ | {"RATCHET_KAFKA_PASSWORD_FILE": str(tmp_path / "password")}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "invalid credentials" in done.stderr
    assert "tr0ub4dor" not in done.stderr
