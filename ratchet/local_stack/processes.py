"""The processes of the stack on one machine, in pipeline order, with their environment."""

from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.local_stack.ports import LOOPBACK
from ratchet.local_stack.token_store import TOKENS_FILE
from shared.python_command import module_command

SAVING_SECONDS = 600
"""Longest wait of a stop for the running training step, the maximum of RATCHET_STOP_SECONDS."""


@dataclass(frozen=True)
class Ports:
    """Ports of the stack, all on loopback."""

    kafka: int = 9092
    kafka_controller: int = 9093
    serving: int = 8081
    feedback: int = 8091
    dataset: int = 8092
    trainer: int = 8093
    registry: int = 8080
    builder: int = 8094


@dataclass(frozen=True)
class StackLayout:
    """The folders of a stack: all state in one, base models and model files in others.

    With `serving_threads` 0, serving chooses the number of threads.
    """

    state: Path
    bases: Path
    models: Path
    serving_threads: int = 0


@dataclass(frozen=True)
class ProcessSpec:
    """Command, environment and readiness URL of one process, and the time that it may take to exit
    on request.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    ready_url: str
    stop_seconds: float = 20.0


def local_url(port: int, path: str = "") -> str:
    return f"http://{LOOPBACK}:{port}{path}"


def process_specs(
    layout: StackLayout, ports: Ports, bootstrap_servers: str, log_level: str = "info"
) -> tuple[ProcessSpec, ...]:
    """Return serving, to which the registry connects, the four services, and the dataset service's
    builder.
    """
    state = layout.state
    common = {
        "RATCHET_BOOTSTRAP_SERVERS": bootstrap_servers,
        "RATCHET_OBJECT_STORE": str(state / "objects"),
        "RATCHET_MODELS": str(layout.models),
        "RATCHET_BASES": str(layout.bases),
        "RATCHET_LOG_LEVEL": log_level,
        "RATCHET_HTTP_HOST": LOOPBACK,
        "RATCHET_SERVING": local_url(ports.serving),
        "RATCHET_SERVING_TOKENS_FILE": str(state / TOKENS_FILE),
        "RATCHET_MERGED": str(state / "merged"),
    }

    serving = {"RATCHET_THREADS": str(layout.serving_threads)} if layout.serving_threads else {}

    def spec(name: str, module: str, port: int, **own: str) -> ProcessSpec:
        environment = common | {f"RATCHET_{name.upper()}_PORT": str(port)} | own
        return ProcessSpec(name, module_command(module), environment, local_url(port, "/readyz"))

    trainer = spec(
        "trainer", "services.trainer", ports.trainer, RATCHET_WORK=str(state / "trainer")
    )

    return (
        spec(
            "serving",
            "ratchet.serving",
            ports.serving,
            RATCHET_SERVING_DATA=str(state / "serving"),
            **serving,
        ),
        spec("feedback", "services.feedback", ports.feedback, RATCHET_DATA=str(state / "faust")),
        spec("dataset", "services.dataset", ports.dataset, RATCHET_DATA=str(state / "faust")),
        spec("builder", "services.dataset.builder", ports.builder),
        replace(trainer, stop_seconds=SAVING_SECONDS + 30),
        spec(
            "registry",
            "services.registry",
            ports.registry,
            RATCHET_DATABASE=f"sqlite:///{state / 'registry.db'}",
            RATCHET_TOKENS_FILE=str(state / TOKENS_FILE),
        ),
    )
