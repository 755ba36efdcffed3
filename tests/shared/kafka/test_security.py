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
def broker_files(tmp_path_factory: pytest.TempPathFactory) -> SecuredBroker:
    """Certificates and a password, without a running broker."""
    return secured_broker(tmp_path_factory.mktemp("files"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in kafka_variables():
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def security_from(environment: pytest.MonkeyPatch, settings: dict[str, str]) -> Security:
    for name, value in settings.items():
        environment.setenv(name, value)
    return kafka_security(read_settings(KafkaSettings))


def test_without_settings_the_connection_is_plaintext(environment: pytest.MonkeyPatch) -> None:
    assert security_from(environment, {}) == PLAINTEXT
    assert PLAINTEXT.options == {}


def test_a_ca_alone_turns_tls_on(
    environment: pytest.MonkeyPatch, broker_files: SecuredBroker
) -> None:
    options = security_from(environment, {"RATCHET_KAFKA_CA": str(broker_files.authority)}).options
    assert options["security_protocol"] == "SSL"
    assert options["ssl_context"].check_hostname


def test_the_password_is_not_in_the_repr(
    environment: pytest.MonkeyPatch, broker_files: SecuredBroker
) -> None:
    security = security_from(environment, broker_files.as_user())
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
    environment: pytest.MonkeyPatch, broker_files: SecuredBroker, left_out: str, named: str
) -> None:
    complete = broker_files.as_user() | broker_files.as_certificate()
    assert security_from(environment, complete).context is not None
    environment.delenv(left_out)
    with pytest.raises(SettingsError, match=named):
        kafka_security(read_settings(KafkaSettings))


def test_an_unusable_file_is_named(
    environment: pytest.MonkeyPatch, broker_files: SecuredBroker, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    for name in sorted(kafka_variables() - {"RATCHET_KAFKA_USERNAME"}):
        for content in (None, b"", b"\xff no PEM \n"):
            wrong.unlink(missing_ok=True)
            if content is not None:
                wrong.write_bytes(content)
            with pytest.raises(
                SettingsError, match=f"RATCHET_KAFKA_.*: expected .*{wrong}"
            ) as error:
                security_from(
                    environment,
                    broker_files.as_user() | broker_files.as_certificate() | {name: str(wrong)},
                )
            assert "no PEM" not in str(error.value)


def test_an_encrypted_or_foreign_key_is_refused(
    environment: pytest.MonkeyPatch, broker_files: SecuredBroker, tmp_path: Path
) -> None:
    _, foreign_key = Authority(tmp_path, "other").issue("stranger")
    encrypted = tmp_path / "encrypted.key"
    plain = load_pem_private_key(broker_files.certificates[OPERATOR][1].read_bytes(), None)
    encrypted.write_bytes(
        plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    for key in (foreign_key, encrypted):
        with pytest.raises(
            SettingsError, match=f"RATCHET_KAFKA_KEY: expected .* unencrypted key .*{key}"
        ):
            security_from(
                environment, broker_files.as_certificate() | {"RATCHET_KAFKA_KEY": str(key)}
            )


def test_every_kafka_client_gets_the_security_options() -> None:
    """A client without them would connect to the plaintext port."""
    # The demo has its own broker, which accepts every local client.
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
@pytest.mark.parametrize("method", ["as_user", "as_certificate"])
async def test_the_bus_connects_with_scram_and_with_certificates(
    environment: pytest.MonkeyPatch, secure_broker: SecuredBroker, method: str
) -> None:
    address, security = (
        (secure_broker.scram if method == "as_user" else secure_broker.mutual),
        security_from(environment, getattr(secure_broker, method)()),
    )
    await apply_topics(address, security=security)
    await wait_for_group_coordinator(address, security=security)
    assert {topic.name for topic in TOPICS} <= await existing_topics(address, security)
    assert (await broker_check(address, security)).state == "ok"
    assert await connection_error(address, security) == ""
    producer = KafkaProducer(address, security)
    await producer.start()
    await producer.send(TRAINING_PROGRESS, method.encode(), b"said", [])
    await producer.stop()
    consumer = KafkaConsumer(address, f"through-{method}", [TRAINING_PROGRESS], security=security)
    await consumer.start()
    async for record in consumer.records():
        await consumer.commit(record)
        if record.key == method.encode():
            consumer.stop_after_current()
    await consumer.stop()
    reader, ends = (
        KafkaTopicReader(address, [TRAINING_PROGRESS], security),
        EndOffsets(address, security=security),
    )
    await reader.start()
    await ends.start()
    try:
        assert method.encode() in [record.key for record in await reader.read_new()]
        assert await ends.lag({(TRAINING_PROGRESS, number): None for number in range(4)})
    finally:
        await reader.stop()
        await ends.stop()


@pytest.mark.kafka
async def test_a_refused_client_gets_the_reason(
    environment: pytest.MonkeyPatch, secure_broker: SecuredBroker, tmp_path: Path
) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("tr0ub4dor")
    stranger = Authority(tmp_path, "stranger")
    certificate, key = stranger.issue(OPERATOR)
    unknown = {"RATCHET_KAFKA_CERTIFICATE": str(certificate), "RATCHET_KAFKA_KEY": str(key)}
    refused = [
        (secure_broker.scram, {}, "if the broker requires TLS, set RATCHET_KAFKA_CA"),
        (
            secure_broker.scram,
            secure_broker.as_user() | {"RATCHET_KAFKA_PASSWORD_FILE": str(wrong)},
            "invalid credentials.*RATCHET_KAFKA_PASSWORD_FILE",
        ),
        (
            secure_broker.scram,
            secure_broker.as_user() | {"RATCHET_KAFKA_CA": str(stranger.file)},
            "CERTIFICATE_VERIFY_FAILED.*RATCHET_KAFKA_CA",
        ),
        (
            secure_broker.mutual,
            secure_broker.as_certificate() | unknown,
            "check that the broker accepts RATCHET_KAFKA_CERTIFICATE",
        ),
        (
            secure_broker.scram,
            {"RATCHET_KAFKA_CA": str(secure_broker.authority)},
            "or set a user .RATCHET_KAFKA_USERNAME.",
        ),
        (
            secure_broker.open,
            secure_broker.as_user(),
            "check that the broker uses TLS on this port",
        ),
    ]
    for address, settings, reason in refused:
        with pytest.MonkeyPatch.context() as patch:
            security = security_from(patch, settings)
        with pytest.raises(BusUnavailable, match=reason) as error:
            await KafkaProducer(address, security).start()
        assert "tr0ub4dor" not in str(error.value)
        with pytest.raises(BusUnavailable, match=reason):
            await existing_topics(address, security)
        assert (await broker_check(address, security)).state == "problem"


@pytest.mark.kafka
def test_commands_use_the_security_of_the_environment(
    environment: pytest.MonkeyPatch, secure_broker: SecuredBroker, tmp_path: Path
) -> None:
    environment.setenv("RATCHET_BOOTSTRAP_SERVERS", secure_broker.scram)
    for name, value in secure_broker.as_user().items():
        environment.setenv(name, value)
    applied = CliRunner().invoke(app, ["topics", "apply", "--json"])
    assert applied.exit_code == 0, applied.output
    (tmp_path / "password").write_text("tr0ub4dor")
    command = [sys.executable, "-m", "ratchet", "topics", "apply"]
    settings = os.environ | {"RATCHET_KAFKA_PASSWORD_FILE": str(tmp_path / "password")}
    result = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "invalid credentials" in result.stderr
    assert "tr0ub4dor" not in result.stderr
