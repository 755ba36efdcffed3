"""Past gates of a model as a fold over outcomes."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations

from services.trainer.bus_view.gate_history import GateHistories
from services.trainer.gate.promotion_level import PastGate
from shared.events import Event, PromotionBudget, TrainingRolledBack
from tests.support.tickets import DIGEST, NOW
from tests.trainer.histories import rolled_back_run, saved_checkpoint


def outcome(run: str, hour: int, gate: int | None = None, evaluation: int = 1) -> Event:
    """Return an inconclusive outcome; without `gate`, as Ratchet 0.1 wrote it."""
    event = rolled_back_run(run, 0.5, 0.0, NOW + timedelta(hours=hour), evaluation)
    assert event.verdict is not None
    if gate is None:
        return event
    budget = PromotionBudget(gate=gate, level=0.01, next_level=0.01, golden_digest=DIGEST)
    verdict = event.verdict.model_copy(update={"p_value": 0.2, "budget": budget})
    return event.model_copy(update={"verdict": verdict})


def gates(*events: Event, run: str = "new") -> Sequence[PastGate]:
    histories = GateHistories()
    for event in events:
        histories.apply(event)
    return histories.before("m", run).past


def test_gates_are_in_the_order_of_time() -> None:
    """Whatever the order of the events, and with repeats: a restarted worker reads two topics."""
    events = [outcome("a", 1), saved_checkpoint("b", NOW + timedelta(hours=2)), outcome("c", 3, 3)]
    expected = [PastGate(False), PastGate(True), PastGate(False, 0.2, DIGEST)]
    for order in permutations(events):
        assert gates(*order, *order) == expected


def test_a_run_is_one_gate_whatever_its_evaluations() -> None:
    checkpoint, later = saved_checkpoint("a", NOW), outcome("a", 1, 1, evaluation=2)
    assert gates(checkpoint, later) == [PastGate(False, 0.2, DIGEST)]
    assert gates(later, checkpoint) == [PastGate(False, 0.2, DIGEST)]


def test_own_run_and_failed_runs_are_no_past_gates() -> None:
    failed = TrainingRolledBack.model_validate(
        outcome("b", 2).model_dump() | {"outcome": "failed", "verdict": None}
    )
    assert gates(outcome("a", 1), failed, run="a") == []


def test_forgotten_gates_count_in_full() -> None:
    """The topics keep a year: the oldest outcome left says how many came before it."""
    assert gates(outcome("a", 1, gate=4)) == [PastGate(False)] * 3 + [PastGate(False, 0.2, DIGEST)]


def test_models_have_lives_of_their_own() -> None:
    other = outcome("a", 1).model_copy(update={"model": "other"})
    assert gates(other) == []
