"""Commands of `ratchet dataset`."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from ratchet import console
from ratchet.cli.commands import app
from ratchet.dataset.lookup import find_batch
from ratchet.local_stack.ports import free_port
from shared.errors import BusUnavailable, CommandRefused, Misconfigured, ObjectNotFound
from shared.events import Artefact, BatchReady
from shared.identity import batch_identity, digest_of
from shared.kafka.announced_batches import batches_from_records
from shared.kafka.client import KafkaProducer
from shared.messaging.bus import Record, publish
from shared.messaging.codec import encode
from shared.messaging.topics import TRAINING_BATCHES
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_manifest
from tests.dataset.snapshot.test_writer import BEFORE_REPORTS
from tests.support.batches import write_chain


def announcement(
    model: str, shard: int, number: int, manifest: Artefact | None = None
) -> BatchReady:
    return BatchReady.model_validate(
        {
            "event_id": batch_identity(model, shard, number),
            "occurred_at": datetime(2026, 1, 1, tzinfo=UTC),
            "model": model,
            "model_digest": digest_of(b""),
            "batch_id": batch_identity(model, shard, number),
            "shard": shard,
            "number": number,
            "lane": "adaptive",
            "manifest": manifest or Artefact(uri="m", digest=digest_of(b"")),
            "counts": {"training": 3, "preference": 1, "negative": 1, "held_out": 1},
            "offsets": [],
        }
    )


BATCHES = [announcement("support", shard, number) for number in range(3) for shard in range(2)] + [
    announcement("sales", 0, 0)
]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (batch_identity("support", 1, 2), ("support", 1, 2)),
        (batch_identity("support", 1, 2)[:10].upper(), ("support", 1, 2)),
        ("sales/0", ("sales", 0, 0)),
        ("support#1/2", ("support", 1, 2)),
    ],
)
def test_find_batch_by_id_prefix_or_number(reference: str, expected: tuple[str, int, int]) -> None:
    batch = find_batch(BATCHES, reference)
    assert (batch.model, batch.shard, batch.number) == expected


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("support/9", "no batch matches 'support/9'; `ratchet dataset list MODEL` lists"),
        (
            "support/1",
            r"2 batches match 'support/1': support#0/1 \(\w{32}\), support#1/1 "
            r"\(\w{32}\); give a longer",
        ),
        ("", r"7 batches match ''.* and 2 more; give a longer"),
    ],
)
def test_no_match_and_several_matches_are_refused(reference: str, message: str) -> None:
    with pytest.raises(CommandRefused, match=message):
        find_batch(BATCHES, reference)


def test_repeated_and_invalid_announcements_are_skipped() -> None:
    value, headers = encode(BATCHES[0], "/test")
    records = [
        Record(TRAINING_BATCHES, 0, offset, b"m", value, tuple(headers)) for offset in range(2)
    ]
    assert batches_from_records([*records, Record(TRAINING_BATCHES, 0, 2, b"m", b"\xff", ())]) == [
        BATCHES[0]
    ]


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dataset", *arguments])


@pytest.fixture
def chain(tmp_path: Path) -> list[Artefact]:
    return write_chain(FsspecStore(str(tmp_path / "objects")), 2)


def at(artefact: Artefact, folder: Path) -> tuple[str, ...]:
    return "--manifest", artefact.uri, "--digest", artefact.digest, "--object-store", str(folder)


def test_show_prints_the_page_and_the_report(chain: list[Artefact], tmp_path: Path) -> None:
    store = FsspecStore(str(tmp_path / "objects"))
    manifest = read_manifest(store, chain[1])
    assert manifest.page is not None
    assert manifest.report is not None
    assert (
        ratchet("show", *at(chain[1], tmp_path / "objects")).output
        == store.get(manifest.page.uri).decode()
    )
    shown = json.loads(ratchet("show", "--json", *at(chain[1], tmp_path / "objects")).output)
    assert shown == json.loads(store.get(manifest.report.uri))


def test_show_renders_the_page_in_a_terminal(
    chain: list[Artefact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", Console(force_terminal=True, color_system=None, width=100))
    shown = ratchet("show", *at(chain[1], tmp_path / "objects")).output
    assert "Contents" in shown
    assert "## " not in shown
    assert max(len(line) for line in shown.splitlines()) <= 100


def test_show_prints_the_manifest_of_a_batch_without_report() -> None:
    path = next(
        path for path in BEFORE_REPORTS.rglob("*.json") if b'"number":0' in path.read_bytes()
    )
    old = at(
        Artefact(uri=str(path.relative_to(BEFORE_REPORTS)), digest=digest_of(path.read_bytes())),
        BEFORE_REPORTS,
    )
    assert "support#0/0" in ratchet("show", *old).output
    assert json.loads(ratchet("show", "--json", *old).output)["number"] == 0


def test_export_lists_the_written_files(chain: list[Artefact], tmp_path: Path) -> None:
    to = str(tmp_path / "out")
    result = ratchet(
        "export",
        "--to",
        to,
        "--format",
        "chat",
        "--kind",
        "training",
        "--json",
        *at(chain[0], tmp_path / "objects"),
    )
    assert json.loads(result.output) == [
        {"kind": "training", "examples": 3, "path": f"{to}/training.chat.jsonl"}
    ]
    again = ratchet("export", "--to", to, "--format", "chat", *at(chain[0], tmp_path / "objects"))
    assert isinstance(again.exception, CommandRefused)
    assert (
        ratchet(
            "export", "--to", to, "--format", "chat", "--force", *at(chain[0], tmp_path / "objects")
        ).exit_code
        == 0
    )


def test_verify_exits_with_1_on_faults(chain: list[Artefact], tmp_path: Path) -> None:
    newest = at(chain[1], tmp_path / "objects")
    whole = ratchet("verify", "--all", "--json", *newest)
    assert (whole.exit_code, json.loads(whole.output)) == (
        0,
        {"whole": True, "batches": ["support#0/1", "support#0/0"], "faults": []},
    )
    (tmp_path / "objects" / chain[0].uri).unlink()
    broken = ratchet("verify", "--all", "--json", *newest)
    output = json.loads(broken.output)
    assert (broken.exit_code, output["whole"], [fault["batch"] for fault in output["faults"]]) == (
        1,
        False,
        ["support#0/1"],
    )
    words = ratchet("verify", *newest)
    assert words.exit_code == 1
    assert "restore it from a copy of the object store" in words.output
    assert words.output.endswith("batches verified: 1; 1 faults\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a", "--manifest", "m", "--digest", digest_of(b"")),
        ("--manifest", "m"),
        ("a", "--digest", "d"),
    ],
)
def test_batch_must_be_named_in_exactly_one_way(arguments: tuple[str, ...]) -> None:
    result = ratchet("show", *arguments)
    assert result.exit_code == 2
    assert "name a batch, or give --manifest URI with --digest D" in result.output


def test_invalid_digest_is_refused() -> None:
    assert ratchet("show", "--manifest", "m", "--digest", "d").exit_code == 2


def test_unavailable_backends_are_reported_with_advice(
    tmp_path: Path, chain: list[Artefact]
) -> None:
    nowhere = ratchet("show", "a", "--bootstrap-servers", f"127.0.0.1:{free_port()}").exception
    assert isinstance(nowhere, BusUnavailable)
    assert "--manifest URI --digest D names a batch without Kafka" in str(nowhere)
    elsewhere = ratchet("show", *at(chain[0], tmp_path / "other")).exception
    assert isinstance(elsewhere, ObjectNotFound)
    assert "RATCHET_OBJECT_STORE" in str(elsewhere)
    unknown = ratchet(
        "show", "--manifest", "m", "--digest", digest_of(b""), "--object-store", "nothing://x"
    ).exception
    assert isinstance(unknown, Misconfigured)


@pytest.mark.kafka
def test_announced_batch_is_listed_shown_and_verified(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "width", 120)
    store = FsspecStore(str(tmp_path / "objects"))
    first, newest = write_chain(store, 2)
    model = f"m{uuid4().hex[:8]}"
    second = announcement(model, 0, 1, newest).model_copy(update={"batch_id": uuid4().hex})

    async def announce() -> None:
        producer = KafkaProducer(broker)
        await producer.start()
        for event in (announcement(model, 0, 0, first), second, second):
            await publish(producer, TRAINING_BATCHES, model, event, "/test")
        await producer.stop()

    asyncio.run(announce())
    where = ("--bootstrap-servers", broker, "--object-store", str(tmp_path / "objects"))
    listed = json.loads(ratchet("list", model, "--json", "--bootstrap-servers", broker).output)
    assert [(batch["number"], batch["batch_id"]) for batch in listed] == [
        (0, batch_identity(model, 0, 0)),
        (1, second.batch_id),
    ]
    assert f"{model}#0/1" in ratchet("list", model, "--bootstrap-servers", broker).output
    for name in (second.batch_id, second.batch_id[:12], f"{model}/1"):
        assert json.loads(ratchet("show", name, "--json", *where).output)["number"] == 1
    verified = ratchet("verify", second.batch_id, "--json", *where)
    assert verified.exit_code == 1
    assert {fault["what"].split(" than")[0] for fault in json.loads(verified.output)["faults"]} == {
        f"its announcement has another {name}"
        for name in ("batch id", "model", "model digest", "offsets")
    }
    assert isinstance(ratchet("show", f"{model}/7", *where).exception, CommandRefused)
