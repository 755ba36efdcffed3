"""The data of a batch as files that other tools read, verified by digest on the way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from shared.errors import CommandRefused, InvalidArtefact, Misconfigured, StorageUnavailable
from shared.events import Message
from shared.storage.object_store import ObjectStore, canonical_json
from shared.storage.snapshots import BatchManifest, Example, ExampleKind, read_examples

Format = Literal["jsonl", "chat", "parquet"]


@dataclass(frozen=True)
class ExportedFile:
    """What was written of one kind; no file where there are no examples."""

    kind: ExampleKind
    examples: int
    path: Path | None


def export(
    store: ObjectStore,
    manifest: BatchManifest,
    folder: Path,
    kinds: Sequence[ExampleKind],
    form: Format,
    *,
    force: bool,
) -> list[ExportedFile]:
    """Write a file for each kind that has examples. Everything is read and verified before the
    first is written.

    Raises Declined when a file is there already and `force` is not given, Misconfigured when a
    format's library is not installed, Unusable when a file was altered or is gone.
    """
    encode, suffix = _FORMATS[form]
    found = {kind: _examples(store, manifest, kind) for kind in kinds}
    paths = {kind: folder / f"{kind}.{suffix}" for kind in kinds if found[kind]}
    taken = [str(path) for path in paths.values() if path.exists()]
    if taken and not force:
        raise CommandRefused(
            f"{', '.join(taken)} would be overwritten; choose another folder, or say --force"
        )
    contents = {kind: encode(kind, found[kind]) for kind in paths}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, path in paths.items():
            beside = path.with_name(f".{path.name}.partial")
            beside.write_bytes(contents[kind])
            beside.replace(path)
    except OSError as error:
        raise StorageUnavailable(f"could not write to {folder}: {error}") from error
    return [ExportedFile(kind, len(found[kind]), paths.get(kind)) for kind in kinds]


def as_chat(kind: ExampleKind, example: Example) -> dict[str, Any]:
    """An example as the trainers of TRL and OpenAI's fine-tuning take it: a conversation that ends
    with the answer; for a preference, a prompt with the answer chosen and the one rejected; for a
    negative, a prompt with a completion that is labelled as bad.
    """
    prompt = [message.model_dump() for message in example.messages]
    answer = [_assistant(example.answer)]
    match kind:
        case "preference":
            return {
                "prompt": prompt,
                "chosen": answer,
                "rejected": [_assistant(example.rejected or "")],
            }
        case "negative":
            return {"prompt": prompt, "completion": answer, "label": False}
        case "training" | "held_out":
            return {"messages": [*prompt, *answer]}


def _jsonl(kind: ExampleKind, examples: Sequence[Example]) -> bytes:
    # Only what the line said: a field that came later stays absent from old lines.
    return _lines(example.model_dump(mode="json", exclude_unset=True) for example in examples)


def _chat(kind: ExampleKind, examples: Sequence[Example]) -> bytes:
    return _lines(as_chat(kind, example) for example in examples)


def _parquet(kind: ExampleKind, examples: Sequence[Example]) -> bytes:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise Misconfigured(
            "Parquet needs pyarrow, which is not installed; type: pip install 'ratchet[export]'"
        ) from error
    text = arrow.string()
    turn = arrow.struct([("role", text), ("content", text)])
    schema = arrow.schema(
        [
            arrow.field("feedback_id", text, nullable=False),
            arrow.field("messages", arrow.list_(turn), nullable=False),
            arrow.field("answer", text, nullable=False),
            arrow.field("rejected", text),
            arrow.field("feedback_type", text, nullable=False),
            arrow.field("reward", arrow.float64(), nullable=False),
            arrow.field("quality", arrow.float64(), nullable=False),
            arrow.field("model_version", text),
            arrow.field("user_id", text),
        ]
    )
    file = BytesIO()
    parquet.write_table(
        arrow.Table.from_pylist([example.model_dump(mode="json") for example in examples], schema),
        file,
    )
    return file.getvalue()


_FORMATS: Mapping[Format, tuple[Callable[[ExampleKind, Sequence[Example]], bytes], str]] = {
    "jsonl": (_jsonl, "jsonl"),
    "chat": (_chat, "chat.jsonl"),
    "parquet": (_parquet, "parquet"),
}


def _examples(store: ObjectStore, manifest: BatchManifest, kind: ExampleKind) -> list[Example]:
    try:
        return read_examples(store, manifest, kind)
    except ValueError as error:
        raise InvalidArtefact(
            f"batch {manifest.batch_id}: {kind} examples cannot be understood: {error}"
        ) from error


def _assistant(content: str) -> dict[str, str]:
    return Message(role="assistant", content=content).model_dump()


def _lines(values: Iterable[Any]) -> bytes:
    return b"".join(canonical_json(value) + b"\n" for value in values)
