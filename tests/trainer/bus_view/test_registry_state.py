"""Registry state as a fold over events."""

from services.trainer.bus_view.registry_state import Champion, RegistryState
from shared.config.training import TrainingConfig
from shared.events import (
    Artefact,
    Event,
    TrainingRolledBack,
    Verdict,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)
from tests.support.tickets import DIGEST, NOW
from tests.trainer.histories import verdict

FIRST, SECOND = (
    Artefact(uri=f"adapters/m/{name}/manifest.json", digest=DIGEST) for name in ("one", "two")
)


def base() -> VersionRegistered:
    return VersionRegistered(
        event_id="0",
        occurred_at=NOW,
        model="m",
        version="v0",
        number=0,
        answer="promoted",
        champion="v0",
    )


def answer_event(version: str, number: int, answer: str, evaluation: int = 1) -> VersionRegistered:
    return VersionRegistered.model_validate(
        {
            "event_id": f"{version}-{evaluation}",
            "occurred_at": NOW,
            "model": "m",
            "version": version,
            "number": number,
            "champion": "v1",
        }
        | {
            "run_id": f"run-{number}",
            "batch_id": f"batch-{number}",
            "evaluation": evaluation,
            "answer": answer,
        }
    )


def promoted(version: str, adapter: Artefact | None) -> VersionPromoted:
    return VersionPromoted(
        event_id=f"p-{version}",
        occurred_at=NOW,
        model="m",
        version=version,
        previous=None,
        adapter=adapter,
        run_id=None,
        actor="t",
        reason="",
    )


def rolled_back_version(actor: str) -> VersionRolledBack:
    return VersionRolledBack(
        event_id="back",
        occurred_at=NOW,
        model="m",
        version="v1",
        from_version="v2",
        adapter=FIRST,
        actor=actor,
        reason="worse",
    )


def rolled_back_run(outcome: str, judged: Verdict | None = None) -> TrainingRolledBack:
    return TrainingRolledBack.model_validate(
        {
            "event_id": "e",
            "occurred_at": NOW,
            "model": "m",
            "model_digest": DIGEST,
            "run_id": "run-3",
            "batch_id": "batch-3",
        }
        | {
            "lane": "adaptive",
            "parent_version": "v1",
            "evaluation": 1,
            "outcome": outcome,
            "reason": "",
            "verdict": judged,
            "configuration": TrainingConfig(),
        }
    )


def view(*events: Event) -> RegistryState:
    state = RegistryState()
    for event in events:
        state.apply(event)
    return state


def test_no_champion_before_the_first_registration() -> None:
    assert view().champion("m") is None
    assert view(base()).champion("other") is None


def test_base_is_champion_until_a_promotion() -> None:
    assert view(base()).champion("m") == Champion("v0", None)
    assert view(base(), answer_event("v1", 1, "promoted"), promoted("v1", FIRST)).champion(
        "m"
    ) == Champion("v1", FIRST)


def test_late_registration_does_not_replace_the_champion() -> None:
    assert view(promoted("v1", FIRST), base()).champion("m") == Champion("v1", FIRST)


def test_rollback_sets_the_champion() -> None:
    assert view(promoted("v2", SECOND), rolled_back_version("operator")).champion("m") == Champion(
        "v1", FIRST
    )


def test_answers_are_keyed_by_run_and_evaluation() -> None:
    state = view(answer_event("v2", 2, "reevaluate"))
    answers = state.run("run-2").answers
    assert {evaluation: event.answer for evaluation, event in answers.items()} == {1: "reevaluate"}
    assert not state.run("run-1").answers


def test_run_ends_with_promotion_or_rollback() -> None:
    assert not view(answer_event("v2", 2, "reevaluate")).run("run-2").has_ended
    reevaluated = answer_event("v2", 2, "reevaluate")
    assert view(reevaluated, answer_event("v2", 2, "promoted", 2)).run("run-2").has_ended
    assert view(rolled_back_run("failed")).run("run-3").has_ended


def test_only_rejected_batches_are_quarantined() -> None:
    assert view(rolled_back_run("rejected")).quarantined_batches("m") == {"batch-3"}
    assert view(rolled_back_run("inconclusive")).quarantined_batches("m") == set()
    assert view(rolled_back_run("failed")).quarantined_batches("m") == set()


def test_batch_rejected_for_forgetting_is_not_quarantined() -> None:
    """Verdicts of earlier versions do not tell: every rejected batch was quarantined."""
    for quarantined, batches in ((False, set()), (True, {"batch-3"}), (None, {"batch-3"})):
        rejected = verdict("reject").model_copy(update={"quarantined": quarantined})
        assert view(rolled_back_run("rejected", rejected)).quarantined_batches("m") == batches


def test_batch_of_a_monitor_rollback_is_quarantined() -> None:
    assert view(
        answer_event("v2", 2, "promoted"), rolled_back_version("monitor")
    ).quarantined_batches("m") == {"batch-2"}
    assert (
        view(
            answer_event("v2", 2, "promoted"), rolled_back_version("operator")
        ).quarantined_batches("m")
        == set()
    )


def test_batch_is_quarantined_only_with_a_worse_challenger() -> None:
    def withdrawn(quarantined: bool) -> VersionWithdrawn:
        fields = {
            "event_id": "w",
            "occurred_at": NOW,
            "model": "m",
            "version": "v2",
            "champion": "v1",
            "run_id": "run-2",
            "batch_id": "batch-2",
        }
        return VersionWithdrawn.model_validate(
            fields | {"quarantined": quarantined, "actor": "canary", "reason": "worse"}
        )

    before = (base(), promoted("v1", FIRST), answer_event("v2", 2, "held"))
    assert view(*before).run("run-2").has_ended
    after = view(*before, withdrawn(True))
    assert after.quarantined_batches("m") == {"batch-2"}
    assert after.champion("m") == Champion("v1", FIRST)
    assert view(*before, withdrawn(False)).quarantined_batches("m") == set()
