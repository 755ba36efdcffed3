"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet.local_stack.processes import Ports, url
from shared.config.settings import KafkaSettings, read
from shared.kafka.security import Security, security_of

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

KAFKA = f"127.0.0.1:{Ports.kafka}"
STATE = Path(".ratchet")
REGISTRY = url(Ports.registry)


def kafka_security() -> Security:
    """What the environment says of how to reach Kafka, as the services read it. Raises
    SettingsError.
    """
    return security_of(read(KafkaSettings))
