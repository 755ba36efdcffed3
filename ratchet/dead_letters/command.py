"""`ratchet dlq`, as it is typed."""

import asyncio
from typing import Annotated

import typer

from ratchet.dead_letters import view
from ratchet.dead_letters.operations import fetch_letter, find_letters, replay_letters
from ratchet.dead_letters.search import DeadLetterFilter, parse_letter_id, parse_since
from ratchet.options import DEFAULT_BOOTSTRAP_SERVERS, Bootstrap, Json, security_from_environment
from shared.clock import SystemClock

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be processed, and why.")

Topic = Annotated[
    str | None,
    typer.Argument(
        help="A dead-letter topic, or the topic that its records come from; without it, all."
    ),
]
Reason = Annotated[str | None, typer.Option(help="A part of the reason.")]
Field = Annotated[
    str | None, typer.Option(help="The field at fault, or the beginning of its path.")
]
Model = Annotated[
    str | None, typer.Option(help="The model that the record names, as far as it can be read.")
]
Since = Annotated[str | None, typer.Option(help="A time, or how long ago: 30m, 12h, 7d.")]
Id = Annotated[
    str,
    typer.Argument(help="topic/partition/offset of the letter, or of the record that it is about."),
]


@dlq.command("list")
def list_(
    topic: Topic = None,
    reason: Reason = None,
    field: Field = None,
    model: Model = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 50,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Show dead letters, and how many there are for each reason."""
    letters = asyncio.run(
        find_letters(
            bootstrap_servers,
            topic,
            _letter_filter(reason, field, model, since),
            security_from_environment(),
        )
    )
    (view.list_as_json if json else view.show_list)(letters, limit)


@dlq.command()
def show(
    id: Id, bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS, json: Json = False
) -> None:
    """Show one dead letter whole: what was sent, why it is here, and what to do. It may hold
    personal data.
    """
    letter, record = asyncio.run(
        fetch_letter(bootstrap_servers, parse_letter_id(id), security_from_environment())
    )
    (view.letter_as_json if json else view.show_letter)(letter, record)


@dlq.command()
def replay(
    topic: Topic = None,
    reason: Reason = None,
    field: Field = None,
    model: Model = None,
    since: Since = None,
    id: Annotated[str | None, typer.Option(help="Only this letter, as `list` names it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, the oldest first.")] = 100,
    attempts: Annotated[
        int, typer.Option(min=1, help="A letter with so many attempts behind it is not replayed.")
    ] = 3,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was replayed before, or tried too often.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be replayed.")
    ] = False,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Put dead letters back where they came from: bytes, key and headers as they were sent."""
    wanted = _letter_filter(reason, field, model, since, id)
    done = asyncio.run(
        replay_letters(
            bootstrap_servers,
            topic,
            wanted,
            limit,
            attempts,
            again,
            dry_run,
            SystemClock(),
            security_from_environment(),
        )
    )
    (view.replayed_as_json if json else view.show_replayed)(done)
    if id is not None and not done.count:
        raise typer.Exit(1)


def _letter_filter(
    reason: str | None,
    field: str | None,
    model: str | None,
    since: str | None,
    id: str | None = None,
) -> DeadLetterFilter:
    after = None if since is None else parse_since(since, SystemClock().now())
    return DeadLetterFilter(
        reason, field, model, after, None if id is None else parse_letter_id(id)
    )
