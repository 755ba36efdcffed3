"""What is printed of dead letters: for people, without letting their content do anything to a
terminal, and as JSON.
"""

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
    "Undecodable": "correct what sends it: these bytes will never be an event; replay only what an older "
    "Ratchet could not read",
    "ContractViolation": "correct what sends it and send it again under the same event id; replay once a newer "
    "Ratchet accepts it",
    "UnknownModel": "add the model file to the folder of models, restart the services, then replay",
    "TooLarge": "send less of it: an event has to fit into one record",
}


def show_list(letters: Sequence[DeadLetter], limit: int) -> None:
    """The newest letters, the newest last, and how many there are for each reason."""
    if not letters:
        console.out.print("no dead letters match")
        return
    columns = ("id", "when", "stood at", "field", "reason", "attempt", "replayed")
    console.print_table(columns, [_row(letter) for letter in letters[-limit:]])
    counts = Counter((letter.info.field, letter.info.reason) for letter in letters).most_common(
        _MAX_REASONS
    )
    console.print_table(
        ("letters", "field", "reason"),
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
    """Everything about one letter, its content as text where it is text."""
    notice = letter.info
    facts = [
        ("id", letter.id),
        ("stood at", format_position(notice.source)),
        ("field", notice.field),
        ("reason", notice.reason),
        ("error", notice.error),
        ("said by", f"{notice.service} {notice.service_version}"),
        ("when", _time(notice.at)),
        ("attempt", notice.attempt),
        ("replayed", _time(letter.replayed)),
        ("what to do", ADVICE.get(notice.error, "see the log of the service")),
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
    for count, why in (
        (planned.already_replayed, "replayed before; --again replays them once more"),
        (
            planned.over_attempts,
            "tried too often, so another replay would only bring them back; --again replays "
            "them all the same",
        ),
        (replayed.expired, "not on their topic any more"),
        (planned.over_limit, "left for the next call; --limit takes more at a time"),
    ):
        if count:
            console.out.print(f"{count} {why}", highlight=False)


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
    notice = letter.info
    return (
        letter.id,
        _time(notice.at),
        format_position(notice.source),
        notice.field,
        notice.reason,
        notice.attempt,
        _time(letter.replayed),
    )


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    notice = letter.info
    said = notice.model_dump(
        include={"at", "field", "reason", "error", "service", "service_version", "attempt"}
    )
    return (
        {"id": letter.id, "source": format_position(notice.source)}
        | said
        | {"bytes": letter.size, "replayed": letter.replayed}
    )


def _content(data: bytes | None) -> dict[str, str] | None:
    """Bytes in JSON: as `text` where they are text, else as `base64`."""
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _text(data: bytes | None) -> str:
    return "(none)" if data is None else data.decode(errors="backslashreplace")


def _indented(value: bytes | None) -> str:
    """JSON over several lines; what is none, as it is."""
    try:
        return to_json(from_json(value or b""), indent=2).decode()
    except ValueError:
        return _text(value)
