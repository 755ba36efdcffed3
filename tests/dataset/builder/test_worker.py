"""The worker process of the builder: an uploaded file becomes a batch, or is refused; and the
process ends with the call, whatever the file does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from services.dataset.builder.build_order import BuildOrder
from services.dataset.builder.worker_process import WorkerProcess
from shared.errors import CommandRefused, StorageUnavailable
from shared.events import TrainingRequested, UploadedFile
from shared.identity import digest_of_file
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import ExampleKind, read_examples, read_manifest
from shared.storage.uploads import upload_key
from tests.support.imported_files import chat, write_jsonl
from tests.support.scored_feedback import START

MODEL = """\
model: support
base: {training: base, serving: base.gguf}
redaction: {kinds: [email]}
curation: {smallest_batch: 3}
lanes: {adaptive: {}, master: {}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of the builder, which its worker inherits."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "support.yaml").write_text(MODEL)
    monkeypatch.setenv("RATCHET_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("RATCHET_OBJECT_STORE", str(tmp_path / "objects"))
    return tmp_path


def order_for(folder: Path, records: Iterable[Any], digest: str | None = None) -> BuildOrder:
    """An order for an uploaded file."""
    path, key = write_jsonl(folder / "a.jsonl", records), upload_key("support", "0" * 32, START)
    FsspecStore(str(folder / "objects")).put_file(key, path)
    request = TrainingRequested(
        event_id="r1",
        occurred_at=START,
        request_id="r1",
        model="support",
        lane="master",
        data={"uri": key, "digest": digest or digest_of_file(path)},
        file=UploadedFile(name="tickets.jsonl", format="chat"),
        hyperparameters={"rank": 32},
        reason="new product line",
    )
    return BuildOrder(request=request, previous=None, number=3)


async def ignore(text: str) -> None:
    """Discard the progress."""


async def test_file_becomes_a_batch_without_personal_data(folder: Path) -> None:
    progress = []

    async def record(text: str) -> None:
        progress.append(text)

    records = [chat(str(n)) for n in range(20)]
    for message in records[0]["messages"]:
        message["content"] += " write to ada@example.com"
    batch = await WorkerProcess(60).build(order_for(folder, [*records, b"{"]), record)
    store = FsspecStore(str(folder / "objects"))
    manifest = read_manifest(store, batch.manifest)
    assert (batch.number, batch.occurred_at, batch.hyperparameters) == (3, START, {"rank": 32})
    assert manifest.imported is not None
    assert (manifest.imported.lines, manifest.imported.errors) == (21, 1)
    assert progress[-1].startswith("21 lines read")
    kinds: tuple[ExampleKind, ...] = ("training", "held_out")
    examples = [each for kind in kinds for each in read_examples(store, manifest, kind)]
    assert len(examples) == batch.counts.training + batch.counts.held_out == 20
    assert not any("ada@" in example.answer for example in examples)


@pytest.mark.parametrize(
    ("records", "digest", "reason"),
    [
        ([], None, "tickets.jsonl is empty"),
        ([b"{"], None, "no line of tickets.jsonl can be used; the first errors say why; line 1"),
        ([chat("a")] * 20, None, "needs 3 (curation.smallest_batch)"),
        ([chat("a")], f"sha256:{'0' * 64}", "tickets.jsonl has digest sha256:"),
    ],
    ids=["empty", "errors", "duplicates", "altered"],
)
async def test_unusable_file_is_refused_by_its_name(
    folder: Path, records: list[Any], digest: str | None, reason: str
) -> None:
    with pytest.raises(CommandRefused) as error:
        await WorkerProcess(60).build(order_for(folder, records, digest), ignore)
    assert reason in str(error.value)
    assert "/tmp" not in str(error.value)


async def test_absent_file_is_refused(folder: Path) -> None:
    order = order_for(folder, [chat("a")])
    FsspecStore(str(folder / "objects")).delete(order.request.data.uri)
    with pytest.raises(CommandRefused, match="is not in the object store"):
        await WorkerProcess(60).build(order, ignore)


async def test_unavailable_store_is_no_refusal(folder: Path) -> None:
    """A folder where the data file should be."""
    order = order_for(folder, [chat(str(n)) for n in range(20)])
    (folder / "objects" / "snapshots").write_text("")
    with pytest.raises(StorageUnavailable):
        await WorkerProcess(60).build(order, ignore)


async def test_endless_import_is_ended(folder: Path) -> None:
    with pytest.raises(CommandRefused, match=r"takes longer than 0\.001 minutes"):
        await WorkerProcess(0.06).build(order_for(folder, [chat("a")]), ignore)


async def test_killed_import_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel kills a process for lack of memory."""
    monkeypatch.setenv("RATCHET_FAILPOINTS", "dataset.data_written=kill")
    with pytest.raises(CommandRefused, match=r"status -9.*divide the file"):
        await WorkerProcess(60).build(order_for(folder, [chat(str(n)) for n in range(20)]), ignore)
