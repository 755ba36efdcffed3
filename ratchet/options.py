"""Options that several groups of commands share."""

from typing import Annotated

import typer

from ratchet.stack import Ports

Bootstrap = Annotated[str, typer.Option(envvar="RATCHET_BOOTSTRAP_SERVERS", help="Kafka brokers.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

KAFKA = f"127.0.0.1:{Ports.kafka}"
