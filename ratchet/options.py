"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet.local_stack.processes import Ports, local_url
from shared.config.settings import KafkaSettings, read_settings
from shared.kafka.security import Security, kafka_security

State = Annotated[
    Path, typer.Option(envvar="RATCHET_STATE", help="The folder that holds all state.")
]
ModelFiles = Annotated[
    Path, typer.Option(envvar="RATCHET_MODELS", help="The folder of model files.")
]
Bases = Annotated[Path, typer.Option(envvar="RATCHET_BASES", help="The folder of base models.")]
Bootstrap = Annotated[str, typer.Option(envvar="RATCHET_BOOTSTRAP_SERVERS", help="Kafka brokers.")]
Registry = Annotated[str, typer.Option(envvar="RATCHET_REGISTRY", help="The registry's URL.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="RATCHET_TOKEN",
        help="A token of the registry's; without one, that of the state folder, on this machine.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_BOOTSTRAP_SERVERS = f"127.0.0.1:{Ports.kafka}"
DEFAULT_STATE = Path(".ratchet")
DEFAULT_REGISTRY = local_url(Ports.registry)


def security_from_environment() -> Security:
    """What the environment says of how to reach Kafka, as the services read it. Raises
    SettingsError.
    """
    return kafka_security(read_settings(KafkaSettings))
