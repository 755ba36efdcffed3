"""An alarm that sounds when the mix jumps and otherwise does not."""

from random import Random

from services.dataset.ledger.feedback_mix import BASELINE, MIN_BASELINE, RECENT, FeedbackMixMonitor


def test_a_campaign_of_corrections_is_noticed_and_over_when_it_is_over() -> None:
    eye = FeedbackMixMonitor()
    for at in range(1000):
        eye.observe("correction" if at % 10 == 0 else "thumbs_up")
    assert not eye.has_spiked("correction")
    for _ in range(RECENT // 2):
        eye.observe("correction")
    assert eye.has_spiked("correction")
    assert not eye.has_spiked("thumbs_up")
    for at in range(RECENT):
        eye.observe("correction" if at % 10 == 0 else "thumbs_up")
    assert not eye.has_spiked("correction")


def test_a_steady_mix_does_not_alarm() -> None:
    false = 0
    for seed in range(20):
        chance, eye = Random(seed), FeedbackMixMonitor()
        for _ in range(2000):
            eye.observe("correction" if chance.random() < 0.3 else "thumbs_up")
            false += eye.has_spiked("correction")
    assert false == 0


def test_without_a_past_there_is_no_alarm() -> None:
    eye = FeedbackMixMonitor()
    for _ in range(MIN_BASELINE + RECENT - 1):
        eye.observe("correction")
        assert not eye.has_spiked("correction")


def test_a_lasting_change_becomes_the_new_usual() -> None:
    eye = FeedbackMixMonitor()
    for kind in ("thumbs_up", "correction"):
        for _ in range(BASELINE + RECENT):
            eye.observe(kind)
    assert not eye.has_spiked("correction")
