"""Alarms on spikes in the mix of feedback, without false alarms."""

from random import Random

from services.dataset.ledger.feedback_mix import (
    BASELINE,
    MIN_BASELINE,
    MIN_DECISIONS,
    RECENT,
    DropMonitor,
    FeedbackMixMonitor,
)


def test_campaign_raises_and_ends_the_alarm() -> None:
    monitor = FeedbackMixMonitor()
    for at in range(1000):
        monitor.observe("correction" if at % 10 == 0 else "thumbs_up")
    assert not monitor.has_spiked("correction")
    for _ in range(RECENT // 2):
        monitor.observe("correction")
    assert monitor.has_spiked("correction")
    assert not monitor.has_spiked("thumbs_up")
    for at in range(RECENT):
        monitor.observe("correction" if at % 10 == 0 else "thumbs_up")
    assert not monitor.has_spiked("correction")


def test_steady_mix_raises_no_alarm() -> None:
    false_alarms = 0
    for seed in range(20):
        chance, monitor = Random(seed), FeedbackMixMonitor()
        for _ in range(2000):
            monitor.observe("correction" if chance.random() < 0.3 else "thumbs_up")
            false_alarms += monitor.has_spiked("correction")
    assert false_alarms == 0


def test_no_alarm_without_a_baseline() -> None:
    monitor = FeedbackMixMonitor()
    for _ in range(MIN_BASELINE + RECENT - 1):
        monitor.observe("correction")
        assert not monitor.has_spiked("correction")


def test_lasting_change_becomes_the_baseline() -> None:
    monitor = FeedbackMixMonitor()
    for kind in ("thumbs_up", "correction"):
        for _ in range(BASELINE + RECENT):
            monitor.observe(kind)
    assert not monitor.has_spiked("correction")


def test_main_reason_while_most_of_the_newest_events_are_dropped() -> None:
    monitor = DropMonitor()
    for _ in range(MIN_DECISIONS - 1):
        monitor.observe("dropped", "near_duplicate")
    assert monitor.main_loss is None
    monitor.observe("dropped", "near_duplicate")
    assert monitor.main_loss == "near_duplicate"
    for _ in range(MIN_DECISIONS + 1):
        monitor.observe("dropped", "contaminated")
    assert monitor.main_loss == "contaminated"
    for at in range(RECENT):
        assert (monitor.main_loss is None) == (at >= RECENT // 2)
        monitor.observe("training", "approved")


def test_replaced_feedback_and_withdrawals_are_no_losses() -> None:
    monitor = DropMonitor()
    for _ in range(RECENT):
        monitor.observe("dropped", "superseded")
        monitor.observe("withdrawal", "withdrawn")
    assert monitor.main_loss is None
