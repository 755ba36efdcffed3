"""Command line options shared by several commands, and their defaults."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet.local_stack.processes import Ports, local_url
from shared.config.settings import KafkaSettings, read_settings
from shared.kafka.security import Security, kafka_security

State = Annotated[Path, typer.Option(envvar="RATCHET_STATE", help="Folder of all state.")]
ModelFiles = Annotated[
    Path,
    typer.Option(
        # The other two are earlier names.
        "--models",
        "--model-files",
        "--folder",
        envvar="RATCHET_MODELS",
        help="Folder of model files.",
    ),
]
Bases = Annotated[Path, typer.Option(envvar="RATCHET_BASES", help="Folder of base models.")]
Bootstrap = Annotated[str, typer.Option(envvar="RATCHET_BOOTSTRAP_SERVERS", help="Kafka brokers.")]
Registry = Annotated[str, typer.Option(envvar="RATCHET_REGISTRY", help="URL of the registry.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="RATCHET_TOKEN",
        help="Registry token; default for a local registry: the state folder's token.",
    ),
]
Reason = Annotated[str, typer.Option(help="Stored in the history.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# The services of `ratchet up` read the same variables.
KafkaPort = Annotated[int, typer.Option(envvar="RATCHET_KAFKA_PORT")]
KafkaControllerPort = Annotated[int, typer.Option(envvar="RATCHET_KAFKA_CONTROLLER_PORT")]
ServingPort = Annotated[int, typer.Option(envvar="RATCHET_SERVING_PORT")]
FeedbackPort = Annotated[int, typer.Option(envvar="RATCHET_FEEDBACK_PORT")]
DatasetPort = Annotated[int, typer.Option(envvar="RATCHET_DATASET_PORT")]
TrainerPort = Annotated[int, typer.Option(envvar="RATCHET_TRAINER_PORT")]
RegistryPort = Annotated[int, typer.Option(envvar="RATCHET_REGISTRY_PORT")]
BuilderPort = Annotated[int, typer.Option(envvar="RATCHET_BUILDER_PORT")]

DEFAULT_REASON = "by hand"
DEFAULT_BOOTSTRAP_SERVERS = f"127.0.0.1:{Ports.kafka}"
DEFAULT_STATE = Path(".ratchet")
DEFAULT_REGISTRY = local_url(Ports.registry)


def security_from_environment() -> Security:
    """Read the Kafka security settings from the environment. Raises SettingsError."""
    return kafka_security(read_settings(KafkaSettings))
