"""Objects of a batch in the object store. Batches from before reports remain readable."""

from pathlib import Path

from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.report import DatasetReport
from services.dataset.snapshot.writer import write_snapshot
from shared.events import Artefact
from shared.identity import batch_identity, digest_of
from shared.storage.object_store import FsspecStore, MemoryStore, get_verified
from shared.storage.snapshots import EXAMPLE_KINDS, BatchManifest, read_examples, read_manifest
from tests.support.batches import FILE, batch_plan, member, write_chain
from tests.support.scored_feedback import SimulatedShard, model_file, scored

BEFORE_REPORTS = Path(__file__).parents[1] / "golden" / "before_reports"
"""The objects of two batches of four, as the dataset service wrote them before manifests named
reports.
"""


class _Recording(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def put(self, key: str, data: bytes) -> Artefact:
        self.order.append(key)
        return super().put(key, data)


def test_manifest_is_written_last_and_names_all_objects() -> None:
    store = _Recording()
    artefact = write_snapshot(
        store, snapshot_content(batch_plan(member("a", 0), member("b", 1, "held_out")), FILE, 0)
    )
    manifest = read_manifest(store, artefact)
    assert manifest.report is not None
    assert manifest.page is not None
    assert store.order[-1] == artefact.uri
    assert set(store.order[:-1]) == {file.artefact.uri for file in manifest.files} | {
        manifest.report.uri,
        manifest.page.uri,
    }


def test_manifest_has_the_log_position_of_each_member() -> None:
    store = MemoryStore()
    manifest = read_manifest(
        store,
        write_snapshot(
            store,
            snapshot_content(
                batch_plan(member("a", 7), member("b", 3), member("c", 5, "negative")), FILE, 0
            ),
        ),
    )
    positions = [
        (name, position.topic, position.partition, position.offset)
        for name, position in zip(manifest.feedback_ids, manifest.positions, strict=True)
    ]
    assert positions == [
        ("a", "feedback.scored", 0, 7),
        ("b", "feedback.scored", 0, 3),
        ("c", "feedback.scored", 0, 5),
    ]


def test_manifest_and_report_agree() -> None:
    store = MemoryStore()
    manifest = read_manifest(store, write_chain(store, 1)[0])
    assert manifest.report is not None
    report = DatasetReport.model_validate_json(get_verified(store, manifest.report))
    for name in (
        "batch_id",
        "counts",
        "dropped",
        "held_back",
        "reasons",
        "made_of",
        "offsets",
        "policy",
    ):
        assert getattr(report, name) == getattr(manifest, name), name
    assert manifest.policy is not None
    assert manifest.policy.curation == FILE.curation.model_dump(mode="json")
    assert manifest.reasons == {
        "training": {"approved": 2, "correction": 1},
        "negative": {"low_reward": 1},
        "held_out": {"held_out": 1},
    }


def test_policy_with_unknown_settings_is_readable() -> None:
    store = MemoryStore()
    manifest = read_manifest(store, write_chain(store, 1)[0])
    assert manifest.policy is not None
    elsewhere = manifest.policy.model_copy(
        update={"curation": {"a_setting_of_another_time": [1, "x", None]}}
    )
    changed = manifest.model_copy(update={"policy": elsewhere})
    assert BatchManifest.model_validate_json(changed.model_dump_json()) == changed


def test_manifests_from_before_reports_are_readable() -> None:
    store = FsspecStore(str(BEFORE_REPORTS))
    manifests = {}
    for path in BEFORE_REPORTS.rglob("*.json"):
        artefact = Artefact(
            uri=str(path.relative_to(BEFORE_REPORTS)), digest=digest_of(path.read_bytes())
        )
        manifest = read_manifest(store, artefact)
        manifests[manifest.number] = artefact, manifest
    assert manifests.keys() == {0, 1}
    assert manifests[1][1].previous == manifests[0][0]
    for number, (_, manifest) in manifests.items():
        assert (manifest.positions, manifest.made_of, manifest.policy, manifest.report) == (
            (),
            {},
            None,
            None,
        )
        assert {
            kind: len(read_examples(store, manifest, kind)) for kind in EXAMPLE_KINDS
        } == manifest.counts.model_dump()
        assert manifest.batch_id == batch_identity("support", 0, number)


def test_batch_id_is_a_function_of_model_shard_and_number() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    world.ledger.decide(scored("a"), member("a", 0).source, member("a", 0).logged_at)
    second = member("b", 1)
    plan = world.ledger.decide(scored("b"), second.source, second.logged_at).batch
    assert plan is not None
    assert plan.batch_id == batch_identity("support", 0, 0)
    assert batch_identity("support", 0, 1) != batch_identity("support", 1, 0)
