"""The commands of `ratchet dlq`."""

import asyncio
from typing import Annotated

import typer

from ratchet.dead_letters import view
from ratchet.dead_letters.operations import fetch_letter, find_letters, replay_letters
from ratchet.dead_letters.search import DeadLetterFilter, parse_letter_id, parse_since
from ratchet.options import DEFAULT_BOOTSTRAP_SERVERS, Bootstrap, Json, security_from_environment
from shared.clock import SystemClock

dlq = typer.Typer(
    no_args_is_help=True, help="Dead letters: records that a service could not process."
)

Topic = Annotated[
    str | None,
    typer.Argument(help="A dead-letter topic or its source topic; default: all."),
]
Reason = Annotated[str | None, typer.Option(help="A part of the reason.")]
Field = Annotated[
    str | None, typer.Option(help="The field at fault, or the beginning of its path.")
]
Model = Annotated[
    str | None, typer.Option(help="The model named in the record, as far as it can be read.")
]
Since = Annotated[str | None, typer.Option(help="A time, or an age: 30m, 12h, 7d.")]
Id = Annotated[
    str,
    typer.Argument(help="topic/partition/offset of the dead letter, or of its source record."),
]


@dlq.command("list")
def list_(
    topic: Topic = None,
    reason: Reason = None,
    field: Field = None,
    model: Model = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest.")] = 50,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """List dead letters, with a count for each reason."""
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
    """Show one dead letter in full: the record, the reason, and what to do. It may contain
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
    id: Annotated[
        str | None, typer.Option(help="Only this dead letter; `list` prints the ids.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Replay at most this many, the oldest.")] = 100,
    attempts: Annotated[
        int, typer.Option(min=1, help="Skip dead letters with at least this many attempts.")
    ] = 3,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Include dead letters replayed before or with too many attempts."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print how many would be replayed, and replay nothing."),
    ] = False,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Publish dead letters to their source partition again, with their original key, value and
    headers.
    """
    letter_filter = _letter_filter(reason, field, model, since, id)
    result = asyncio.run(
        replay_letters(
            bootstrap_servers,
            topic,
            letter_filter,
            limit,
            attempts,
            again,
            dry_run,
            SystemClock(),
            security_from_environment(),
        )
    )
    (view.replayed_as_json if json else view.show_replayed)(result)
    if id is not None and not result.count:
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
