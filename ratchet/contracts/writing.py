"""Contract files in `docs`, and the archive of earlier schemas."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ratchet.contracts.asyncapi import asyncapi_document
from ratchet.contracts.compatibility import incompatibilities, same_constraints
from ratchet.contracts.events_page import events_page
from ratchet.contracts.model_file_page import model_file_page
from ratchet.contracts.schemas import event_schemas
from shared.messaging.topics import FEEDBACK_RECEIVED, TOPICS
from shared.version import ratchet_version

EXTERNAL_EVENTS = frozenset(
    event.type_name()
    for topic in TOPICS
    if topic.name == FEEDBACK_RECEIVED
    for event in topic.events
)


class IncompatibleSchema(Exception):
    """A schema breaks a promise of its predecessor; nothing was written."""


def contract_files(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the generated files of `docs`, by path. `examples` are events by their CloudEvents
    `type`.
    """
    current = event_schemas()
    files = {f"schemas/{name}.json": _as_json(schema) for name, schema in current.items()}
    asyncapi = yaml.safe_dump(
        asyncapi_document(ratchet_version(), examples),
        sort_keys=False,
        allow_unicode=True,
        width=140,
    )
    pages = {"events.md": events_page(current), "model-file.md": model_file_page()}
    return files | {"asyncapi.yaml": asyncapi} | pages


def write_contracts(docs: Path, examples: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Update the files in `docs` and return the changed ones.

    A schema whose constraints changed is archived in `schemas/earlier`. Raises IncompatibleSchema.
    """
    current = event_schemas()
    earlier = {
        name: schema
        for name, schema in _present(docs, current).items()
        if not same_constraints(schema, current[name])
    }
    broken = [
        f"{name}: {problem}"
        for name, schema in earlier.items()
        for problem in incompatibilities(schema, current[name], external=name in EXTERNAL_EVENTS)
    ]
    if broken:
        raise IncompatibleSchema("\n".join(broken))
    for name, schema in earlier.items():
        archive = docs / "schemas" / "earlier"
        archive.mkdir(parents=True, exist_ok=True)
        number = 1 + len([*archive.glob(f"{name}.older-*.json")])
        (archive / f"{name}.older-{number}.json").write_text(
            _as_json(schema, indent=None), encoding="utf-8"
        )
    return [
        path for name, text in contract_files(examples).items() if _put(path := docs / name, text)
    ]


def _present(docs: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    paths = [docs / "schemas" / f"{name}.json" for name in names]
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()
    }


def _put(path: Path, text: str) -> bool:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


def _as_json(schema: Mapping[str, Any], indent: int | None = 2) -> str:
    return json.dumps(schema, indent=indent, ensure_ascii=False) + "\n"
