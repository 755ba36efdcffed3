"""Export of a batch's data to files for other tools. All data is verified by digest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from shared.errors import CommandRefused, InvalidArtefact, Misconfigured, StorageUnavailable
from shared.events import Message
from shared.storage.object_store import ObjectStore, canonical_json
from shared.storage.snapshots import BatchManifest, Example, ExampleKind, read_examples
from shared.version import install_command

Format = Literal["jsonl", "chat", "parquet"]


@dataclass(frozen=True)
class ExportedFile:
    """The exported examples of one kind. `path` is None without examples."""

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
    """Write a file for each kind that has examples. All data is read and verified before the first
    file is written.

    Raises CommandRefused if a file exists and `force` is not given, Misconfigured if a format's
    library is not installed, InvalidArtefact if a file was altered or is missing.
    """
    encode, suffix = _FORMATS[form]
    examples = {kind: _examples(store, manifest, kind) for kind in kinds}
    paths = {kind: folder / f"{kind}.{suffix}" for kind in kinds if examples[kind]}
    existing = [str(path) for path in paths.values() if path.exists()]
    if existing and not force:
        raise CommandRefused(
            f"{', '.join(existing)} would be overwritten; choose another folder, or use --force"
        )
    contents = {kind: encode(kind, examples[kind]) for kind in paths}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, path in paths.items():
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(contents[kind])
            partial.replace(path)
    except OSError as error:
        raise StorageUnavailable(f"could not write to {folder}: {error}") from error
    return [ExportedFile(kind, len(examples[kind]), paths.get(kind)) for kind in kinds]


def as_chat(kind: ExampleKind, example: Example) -> dict[str, Any]:
    """Convert an example to the format of TRL and OpenAI fine-tuning: a conversation that ends with
    the answer; for a preference, a prompt with the chosen and the rejected answer; for a negative,
    a prompt with a completion that is labelled as bad.
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
    # Only the fields of the stored line: fields added later stay absent from old lines.
    return _lines(example.model_dump(mode="json", exclude_unset=True) for example in examples)


def _chat(kind: ExampleKind, examples: Sequence[Example]) -> bytes:
    return _lines(as_chat(kind, example) for example in examples)


def _parquet(kind: ExampleKind, examples: Sequence[Example]) -> bytes:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise Misconfigured(
            f"Parquet needs pyarrow, which is not installed; run {install_command('export')}"
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
            arrow.field("comment", text),
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
            f"batch {manifest.batch_id}: {kind} examples cannot be parsed: {error}"
        ) from error


def _assistant(content: str) -> dict[str, str]:
    return Message(role="assistant", content=content).model_dump()


def _lines(values: Iterable[Any]) -> bytes:
    return b"".join(canonical_json(value) + b"\n" for value in values)
