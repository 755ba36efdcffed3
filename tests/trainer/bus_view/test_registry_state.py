"""The registry's events folded into a view."""

from services.trainer.bus_view.registry_state import Champion, RegistryState
from shared.config.training import TrainingConfig
from shared.events import (
    Artefact,
    Event,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)
from tests.trainer.tickets import DIGEST, NOW

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


def answered(version: str, number: int, answer: str, evaluation: int = 1) -> VersionRegistered:
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


def went_back(actor: str) -> VersionRolledBack:
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


def ended(outcome: str) -> TrainingRolledBack:
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
            "configuration": TrainingConfig(),
        }
    )


def view(*events: Event) -> RegistryState:
    champions = RegistryState()
    for event in events:
        champions.apply(event)
    return champions


def test_nobody_is_champion_before_the_registry_says_so() -> None:
    assert view().champion("m") is None
    assert view(base()).champion("other") is None


def test_the_base_is_champion_until_a_version_is_promoted() -> None:
    assert view(base()).champion("m") == Champion("v0", None)
    assert view(base(), answered("v1", 1, "promoted"), promoted("v1", FIRST)).champion(
        "m"
    ) == Champion("v1", FIRST)


def test_a_registration_heard_late_does_not_depose_a_champion() -> None:
    assert view(promoted("v1", FIRST), base()).champion("m") == Champion("v1", FIRST)


def test_going_back_names_the_champion() -> None:
    assert view(promoted("v2", SECOND), went_back("operator")).champion("m") == Champion(
        "v1", FIRST
    )


def test_answers_are_found_by_run_and_evaluation() -> None:
    champions = view(answered("v2", 2, "reevaluate"))
    assert champions.registry_answer("run-2", 2) is None
    found = champions.registry_answer("run-2", 1)
    assert found is not None
    assert found.answer == "reevaluate"


def test_a_run_has_ended_with_its_promotion_or_its_rollback() -> None:
    assert not view(answered("v2", 2, "reevaluate")).has_ended("run-2")
    assert view(answered("v2", 2, "reevaluate"), answered("v2", 2, "promoted", 2)).has_ended(
        "run-2"
    )
    assert view(ended("failed")).has_ended("run-3")


def test_rejected_batches_are_quarantined_and_others_are_not() -> None:
    assert view(ended("rejected")).quarantined_batches("m") == {"batch-3"}
    assert view(ended("inconclusive")).quarantined_batches("m") == set()
    assert view(ended("failed")).quarantined_batches("m") == set()


def test_the_batch_of_a_version_that_the_monitor_took_back_is_quarantined() -> None:
    assert view(answered("v2", 2, "promoted"), went_back("monitor")).quarantined_batches("m") == {
        "batch-2"
    }
    assert (
        view(answered("v2", 2, "promoted"), went_back("operator")).quarantined_batches("m") == set()
    )


def test_a_batch_is_quarantined_with_the_challenger_that_did_worse_and_not_with_one_that_could_not_be_served() -> (
    None
):
    def withdrawn(quarantined: bool) -> VersionWithdrawn:
        about = {
            "event_id": "w",
            "occurred_at": NOW,
            "model": "m",
            "version": "v2",
            "champion": "v1",
            "run_id": "run-2",
            "batch_id": "batch-2",
        }
        return VersionWithdrawn.model_validate(
            about | {"quarantined": quarantined, "actor": "canary", "reason": "worse"}
        )

    before = (base(), promoted("v1", FIRST), answered("v2", 2, "held"))
    assert view(*before).has_ended("run-2")
    tried = view(*before, withdrawn(True))
    assert tried.quarantined_batches("m") == {"batch-2"}
    assert tried.champion("m") == Champion("v1", FIRST)
    assert view(*before, withdrawn(False)).quarantined_batches("m") == set()
