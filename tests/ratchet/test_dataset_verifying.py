"""Verification finds every kind of damage to snapshots, without false alarms."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ratchet.dataset.verifying import VerifiedBatches, verify_batches
from shared.errors import StorageUnavailable
from shared.events import Artefact, BatchReady
from shared.identity import digest_of
from shared.storage.object_store import FsspecStore, MemoryStore, canonical_json
from shared.storage.snapshots import BatchManifest, ExampleKind, read_manifest
from tests.dataset.snapshot.test_writer import BEFORE_REPORTS
from tests.support.batches import write_chain


class Chain:
    """Three batches in a folder, and ways to damage them. A changed manifest is written under its
    new digest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FsspecStore(str(folder))
        self.claims = write_chain(self.store, 3)

    @property
    def newest(self) -> Artefact:
        return self.claims[-1]

    def manifest(self, number: int = 2) -> BatchManifest:
        return read_manifest(self.store, self.claims[number])

    def file(self, kind: ExampleKind, number: int = 2) -> Path:
        (uri,) = [file.artefact.uri for file in self.manifest(number).files if file.kind == kind]
        return self.folder / uri

    def change(self, **fields: Any) -> None:
        """Change fields of the newest manifest."""
        changed = self.manifest().model_dump(mode="json") | fields
        data = canonical_json(changed)
        self.claims[-1] = self.store.put(f"{digest_of(data).removeprefix('sha256:')}.json", data)

    def rewrite(self, kind: ExampleKind, lines: Sequence[bytes]) -> None:
        """Replace a data file of the newest batch, with a matching digest."""
        artefact = self.store.put(f"{kind}.jsonl", b"".join(line + b"\n" for line in lines))
        files = [file.model_dump(mode="json") for file in self.manifest().files]
        self.change(
            files=[
                file | {"artefact": artefact.model_dump()} if file["kind"] == kind else file
                for file in files
            ]
        )

    def verify(self, *, whole_chain: bool = True) -> VerifiedBatches:
        return verify_batches(self.store, self.newest, whole_chain=whole_chain)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_intact_chain_has_no_faults(chain: Chain) -> None:
    assert chain.verify() == VerifiedBatches(("support#0/2", "support#0/1", "support#0/0"), ())
    assert chain.verify(whole_chain=False) == VerifiedBatches(("support#0/2",), ())


def test_batches_without_reports_have_no_faults() -> None:
    store = FsspecStore(str(BEFORE_REPORTS))
    artefacts = [
        Artefact(uri=str(path.relative_to(BEFORE_REPORTS)), digest=digest_of(path.read_bytes()))
        for path in BEFORE_REPORTS.rglob("*.json")
    ]
    (newest,) = [artefact for artefact in artefacts if read_manifest(store, artefact).number == 1]
    assert verify_batches(store, newest, whole_chain=True) == VerifiedBatches(
        ("support#0/1", "support#0/0"), ()
    )


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def page_of(chain: Chain) -> Path:
    page = chain.manifest().page
    assert page is not None
    return chain.folder / page.uri


def first_lines(chain: Chain, kind: ExampleKind) -> list[bytes]:
    return chain.file(kind).read_bytes().splitlines()


def hold_out_what_was_trained_on(chain: Chain) -> None:
    (held_out,) = first_lines(chain, "held_out")
    trained = json.loads(chain.file("training", 1).read_bytes().splitlines()[1])
    chain.rewrite(
        "held_out", [canonical_json(json.loads(held_out) | {"messages": trained["messages"]})]
    )


Damage = Callable[[Chain], object]
DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "an altered byte": (
        lambda chain: alter(chain.file("training")),
        "support#0/2",
        "training examples: .* was altered or cut off",
    ),
    "a file that is cut off": (
        lambda chain: chain.file("negative").write_bytes(b""),
        "support#0/2",
        "negative examples: .* was altered or cut off",
    ),
    "a missing file": (
        lambda chain: chain.file("preference").unlink(),
        "support#0/2",
        "preference examples: .* is not in the object store",
    ),
    "a missing page": (
        lambda chain: page_of(chain).unlink(),
        "support#0/2",
        "report: .* is not in the object store",
    ),
    "an altered page": (
        lambda chain: alter(page_of(chain)),
        "support#0/2",
        "report: .* was altered",
    ),
    "an altered file of an earlier batch": (
        lambda chain: alter(chain.file("held_out", 0)),
        "support#0/0",
        "held_out examples: .* altered",
    ),
    "a missing newest manifest": (
        lambda chain: (chain.folder / chain.newest.uri).unlink(),
        "snapshots/",
        "manifest cannot be read: .* not in",
    ),
    "an altered newest manifest": (
        lambda chain: alter(chain.folder / chain.newest.uri),
        "snapshots/",
        "manifest cannot be read: .* altered",
    ),
    "a missing middle of the chain": (
        lambda chain: (chain.folder / chain.claims[1].uri).unlink(),
        "support#0/2",
        "the chain ends here.* is not in the object store",
    ),
    "an altered middle of the chain": (
        lambda chain: alter(chain.folder / chain.claims[1].uri),
        "support#0/2",
        "the chain ends here.* altered",
    ),
    "numbers that are not consecutive": (
        lambda chain: chain.change(previous=chain.claims[0].model_dump()),
        "support#0/2",
        "the batch before it is support#0/0: numbers are not consecutive",
    ),
    "a chain that begins too late": (
        lambda chain: chain.change(previous=None),
        "support#0/2",
        "is batch 2 and names no batch before it",
    ),
    "another shard": (
        lambda chain: chain.change(shard=1),
        "support#1/2",
        "the batch before it is of another model or shard",
    ),
    "an id that is not of its place": (
        lambda chain: chain.change(batch_id="b"),
        "support#0/2",
        "its ID is b, expected",
    ),
    "a doubled id": (
        lambda chain: chain.change(feedback_ids=[*chain.manifest().feedback_ids[:-1], "u2"]),
        "support#0/2",
        "u2 are members more than once",
    ),
    "a member without an example": (
        lambda chain: chain.change(feedback_ids=[*chain.manifest().feedback_ids, "x"]),
        "support#0/2",
        "x are members without an example",
    ),
    "an example that is no member": (
        lambda chain: chain.change(feedback_ids=chain.manifest().feedback_ids[1:]),
        "support#0/2",
        r"/shop\|c2 are in its files but not",
    ),
    "an event in two batches": (
        lambda chain: chain.change(feedback_ids=[*chain.manifest().feedback_ids[:-1], "h1"]),
        "support#0/1",
        "h1 are also in support#0/2",
    ),
    "a wrong count": (
        lambda chain: chain.change(counts=chain.manifest().counts.model_dump() | {"training": 4}),
        "support#0/2",
        "its files hold 3 training examples; the manifest declares 3 by file and 4 in total",
    ),
    "a line too many": (
        lambda chain: chain.rewrite("negative", first_lines(chain, "negative") * 2),
        "support#0/2",
        "its files hold 2 negative examples; the manifest declares 1 by file and 1 in total",
    ),
    "a line that is no example": (
        lambda chain: chain.rewrite("negative", [b"{}"]),
        "support#0/2",
        "negative examples cannot be parsed",
    ),
    "another composition": (
        lambda chain: chain.rewrite(
            "negative",
            [
                line.replace(b'"reward":-1.0', b'"reward":-0.5')
                for line in first_lines(chain, "negative")
            ],
        ),
        "support#0/2",
        "the composition of its negative examples differs from the manifest",
    ),
    "a preference that is no training example": (
        lambda chain: chain.rewrite(
            "preference",
            [line.replace(b"/shop|c2", b"/shop|c9") for line in first_lines(chain, "preference")],
        ),
        "support#0/2",
        r"/shop\|c9 are preferences without a training example",
    ),
    "a kind without a file": (
        lambda chain: chain.change(
            files=[
                file.model_dump(mode="json")
                for file in chain.manifest().files
                if file.kind != "negative"
            ]
        ),
        "support#0/2",
        "it has no file of negative examples",
    ),
    "a position too few": (
        lambda chain: chain.change(
            positions=[position.model_dump() for position in chain.manifest().positions[:-1]]
        ),
        "support#0/2",
        "it has 5 members and 4 positions",
    ),
    "a doubled position": (
        lambda chain: chain.change(positions=[chain.manifest().positions[0].model_dump()] * 5),
        "support#0/2",
        "two of its members have the same position",
    ),
    "other offsets": (
        lambda chain: chain.change(offsets=[]),
        "support#0/2",
        "its offsets are not those of its members",
    ),
    "a prompt on both sides": (
        hold_out_what_was_trained_on,
        "support#0/1",
        "are both in training and held out: trained on in support#0/1, held out in support#0/2",
    ),
}


@pytest.mark.parametrize("harm", DAMAGES)
def test_every_kind_of_damage_is_found(chain: Chain, harm: str) -> None:
    damage_chain, batch, text = DAMAGES[harm]
    damage_chain(chain)
    verified = chain.verify()
    faults = [fault for fault in verified.faults if fault.batch.startswith(batch)]
    assert any(re.search(text, fault.what) for fault in faults), verified.faults
    assert all(fault.advice for fault in verified.faults)


def test_announcement_that_differs_is_a_fault(chain: Chain) -> None:
    manifest = chain.manifest()
    announcement = BatchReady(
        event_id=manifest.batch_id,
        occurred_at="2026-01-01T00:00:00Z",
        manifest=chain.newest,
        **manifest.model_dump(
            include={
                "model",
                "model_digest",
                "batch_id",
                "shard",
                "number",
                "lane",
                "counts",
                "offsets",
            }
        ),
    )
    assert verify_batches(chain.store, chain.newest, announcement, whole_chain=True).faults == ()
    renumbered = announcement.model_copy(update={"number": 3})
    (fault,) = verify_batches(chain.store, chain.newest, renumbered, whole_chain=True).faults
    assert fault.what == "its announcement has another number than its manifest"


def test_unavailable_object_store_is_no_fault() -> None:
    class Away(MemoryStore):
        def get(self, key: str) -> bytes:
            raise StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        verify_batches(Away(), Artefact(uri="m", digest=digest_of(b"")), whole_chain=False)
