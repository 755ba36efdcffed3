"""`ratchet topics`: create and list Ratchet's Kafka topics."""

import asyncio
from typing import Annotated

import typer

from ratchet import console
from ratchet.kafka_admin.topics import apply_topics
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    Bootstrap,
    Json,
    security_from_environment,
)
from shared.messaging.topics import TOPICS

topics = typer.Typer(no_args_is_help=True, help="Create and list the Kafka topics.")


@topics.command("apply")
def topics_apply(
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    replication: int = 1,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Partitions of each created topic, fixed from then on; default: the topic table.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create the topics that are missing in the cluster."""
    applied = asyncio.run(
        apply_topics(
            bootstrap_servers,
            replication=replication,
            partitions=partitions,
            security=security_from_environment(),
        )
    )
    if json:
        console.print_json({"created": applied.created, "present": applied.present})
    else:
        console.out.print(f"{len(applied.created)} topics created, {len(applied.present)} present")


@topics.command("list")
def topics_list(json: Json = False) -> None:
    """Show the topic table."""
    if json:
        console.print_json(
            [
                {"name": topic.name, "partitions": topic.partitions, **topic.settings}
                for topic in TOPICS
            ]
        )
        return
    rows = [
        (
            topic.name,
            topic.key,
            ", ".join(event.__name__ for event in topic.events),
            topic.producer,
            topic.retention or "always",
        )
        for topic in TOPICS
    ]
    console.print_table(("topic", "key", "events", "producer", "retention"), rows)
