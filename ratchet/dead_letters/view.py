"""Output of dead letters: as text with control characters escaped, and as JSON."""

import base64
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json, to_json

from ratchet import console
from ratchet.dead_letters.operations import ReplayResult
from ratchet.dead_letters.search import DeadLetter
from shared.messaging.bus import Record
from shared.messaging.dead_letters import format_position, original_headers

_MAX_REASONS = 10

ADVICE = {
    "Undecodable": "fix the sender: these bytes can never be decoded; replay only records that an "
    "older Ratchet could not read",
    "ContractViolation": "fix the sender, and send the event again under the same event id; replay "
    "once a newer Ratchet accepts it",
    "UnknownModel": "add the model file to the models folder, restart the services, then replay",
    "TooLarge": "send less: an event has to fit into one record",
}


def show_list(letters: Sequence[DeadLetter], limit: int) -> None:
    """Print the newest dead letters, newest last, and the number of all of them by reason."""
    if not letters:
        console.out.print("no dead letters match")
        return
    columns = ("id", "time", "source", "field", "reason", "attempt", "replayed")
    console.print_table(columns, [_row(letter) for letter in letters[-limit:]])
    counts = Counter((letter.info.field, letter.info.reason) for letter in letters).most_common(
        _MAX_REASONS
    )
    console.print_table(
        ("dead letters", "field", "reason"),
        [(count, field, reason) for (field, reason), count in counts],
    )
    console.out.print(f"{min(limit, len(letters))} of {len(letters)} shown", highlight=False)


def list_as_json(letters: Sequence[DeadLetter], limit: int) -> None:
    counts = Counter((letter.info.field, letter.info.reason) for letter in letters).most_common()
    reasons = [
        {"field": field, "reason": reason, "letters": count} for (field, reason), count in counts
    ]
    console.print_json(
        {
            "letters": [_letter_json(letter) for letter in letters[-limit:]],
            "matching": len(letters),
            "reasons": reasons,
        }
    )


def show_letter(letter: DeadLetter, record: Record) -> None:
    """Print a dead letter in full; content that is not text is escaped."""
    info = letter.info
    facts = [
        ("id", letter.id),
        ("source", format_position(info.source)),
        ("field", info.field),
        ("reason", info.reason),
        ("error", info.error),
        ("rejected by", f"{info.service} {info.service_version}"),
        ("time", _time(info.at)),
        ("attempt", info.attempt),
        ("replayed", _time(letter.replayed)),
        ("what to do", ADVICE.get(info.error, "see the service's log")),
        ("key", _text(record.key)),
        *((f"header {name}", _text(value)) for name, value in original_headers(record.headers)),
    ]
    console.print_table(("", letter.position.topic), facts)
    console.print_text(_indented(record.value))


def letter_as_json(letter: DeadLetter, record: Record) -> None:
    headers = [
        {"name": name, "value": _content(value)} for name, value in original_headers(record.headers)
    ]
    advice = ADVICE.get(letter.info.error, "")
    console.print_json(
        _letter_json(letter)
        | {
            "advice": advice,
            "key": _content(record.key),
            "headers": headers,
            "value": _content(record.value),
        }
    )


def show_replayed(replayed: ReplayResult) -> None:
    planned = replayed.plan
    if not (planned.letters or planned.already_replayed or planned.over_attempts):
        console.out.print("no dead letters match")
        return
    console.out.print(
        f"{replayed.count} would be replayed" if replayed.dry_run else f"{replayed.count} replayed",
        highlight=False,
    )
    for count, reason in (
        (planned.already_replayed, "skipped, replayed before; --again replays them as well"),
        (
            planned.over_attempts,
            "skipped, too many attempts; fix the cause, then use --attempts or --again",
        ),
        (replayed.expired, "skipped, deleted from the dead-letter topic"),
        (planned.over_limit, "left over the limit; run the command again or raise --limit"),
    ):
        if count:
            console.out.print(f"{count} {reason}", highlight=False)


def replayed_as_json(replayed: ReplayResult) -> None:
    planned = replayed.plan
    console.print_json(
        {
            "replayed": 0 if replayed.dry_run else replayed.count,
            "dry_run": replayed.dry_run,
            "already": planned.already_replayed,
            "exhausted": planned.over_attempts,
            "gone": replayed.expired,
            "left": planned.over_limit,
            "letters": [_letter_json(letter) for letter in planned.letters],
        }
    )


def _row(letter: DeadLetter) -> tuple[object, ...]:
    info = letter.info
    return (
        letter.id,
        _time(info.at),
        format_position(info.source),
        info.field,
        info.reason,
        info.attempt,
        _time(letter.replayed),
    )


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    info = letter.info
    fields = info.model_dump(
        include={"at", "field", "reason", "error", "service", "service_version", "attempt"}
    )
    return (
        {"id": letter.id, "source": format_position(info.source)}
        | fields
        | {"bytes": letter.size, "replayed": letter.replayed}
    )


def _content(data: bytes | None) -> dict[str, str] | None:
    """Return bytes for JSON: as `text` if they are UTF-8, else as `base64`."""
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _text(data: bytes | None) -> str:
    return "(none)" if data is None else data.decode(errors="backslashreplace")


def _indented(value: bytes | None) -> str:
    """Return JSON with indentation, and other content unchanged."""
    try:
        return to_json(from_json(value or b""), indent=2).decode()
    except ValueError:
        return _text(value)
