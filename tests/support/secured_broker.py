"""A broker with three listeners, each on its own port: plaintext for tests, SCRAM over TLS, and
client certificates.

Principals of the last two need ACLs; the operator may do everything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import LOOPBACK, free_port
from shared.clock import SystemClock

OPERATOR = "operator"
USERS = (OPERATOR, "feedback", "trainer", "registry")
CERTIFICATES = (OPERATOR, "dataset")
PASSWORD = "correct-horse-7"

_TOPIC, _GROUP, _LITERAL, _ALLOW = 2, 3, 3, 3
_READ, _WRITE = 3, 4


class Authority:
    """Certificate authority; each certificate is written as two PEM files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._signed(
            name, self._key, x509.BasicConstraints(ca=True, path_length=0)
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Issue a certificate for the loopback address; return the files of the certificate and its
        key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, secret = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(
            self._signed(name, key, x509.BasicConstraints(ca=False, path_length=None)).public_bytes(
                Encoding.PEM
            )
        )
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, secret

    def _signed(
        self, name: str, key: ec.EllipticCurvePrivateKey, constraints: x509.BasicConstraints
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False
            )
            .add_extension(constraints, critical=True)
            .sign(self._key, SHA256())
        )


@dataclass(frozen=True)
class SecuredBroker:
    """Addresses of the listeners, and the settings of clients."""

    broker: Broker
    scram: str
    mutual: str
    authority: Path
    certificates: Mapping[str, tuple[Path, Path]]
    password_file: Path

    @property
    def open(self) -> str:
        return self.broker.bootstrap_servers

    def as_user(self, name: str = OPERATOR) -> dict[str, str]:
        named = {
            "RATCHET_KAFKA_USERNAME": name,
            "RATCHET_KAFKA_PASSWORD_FILE": str(self.password_file),
        }
        return {"RATCHET_KAFKA_CA": str(self.authority)} | named

    def as_certificate(self, name: str = OPERATOR) -> dict[str, str]:
        certificate, key = self.certificates[name]
        shown = {"RATCHET_KAFKA_CERTIFICATE": str(certificate), "RATCHET_KAFKA_KEY": str(key)}
        return {"RATCHET_KAFKA_CA": str(self.authority)} | shown

    async def grant(
        self, principal: str, reads: Iterable[str], writes: Iterable[str], groups: Iterable[str]
    ) -> None:
        """Allow a principal to read and write topics, and to join groups."""
        permissions = [
            *((_TOPIC, topic, _READ) for topic in reads),
            *((_TOPIC, topic, _WRITE) for topic in writes),
            *((_GROUP, group, _READ) for group in groups),
        ]
        client = AIOKafkaClient(bootstrap_servers=self.open)
        await client.bootstrap()
        try:
            for kind, name, operation in permissions:
                request = CreateAclsRequest(kind, name, _LITERAL, principal, "*", operation, _ALLOW)
                answer = await client.send(client.get_random_node(), request)
                assert answer.creation_responses[0][0] == 0, answer
        finally:
            await client.close()


def secured_broker(folder: Path) -> SecuredBroker:
    """Create a broker with certificates and users, not started yet."""
    authority = Authority(folder, "authority")
    certificates = {name: authority.issue(name) for name in CERTIFICATES}
    server, server_key = authority.issue("server")
    store, password_file = folder / "server.pem", folder / "password"
    store.write_bytes(server_key.read_bytes() + server.read_bytes())
    password_file.write_text(PASSWORD + "\n")
    inside, control, scram, mutual = free_port(), free_port(), free_port(), free_port()
    listener_ports = {"PLAINTEXT": inside, "SCRAM": scram, "MUTUAL": mutual}
    listeners = ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in listener_ports.items())
    properties = {
        "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{control}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{OPERATOR};User:CN={OPERATOR}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": store,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority.file,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    broker = Broker(
        folder / "kafka", inside, control, SystemClock(), properties, dict.fromkeys(USERS, PASSWORD)
    )
    return SecuredBroker(
        broker,
        f"{LOOPBACK}:{scram}",
        f"{LOOPBACK}:{mutual}",
        authority.file,
        certificates,
        password_file,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
