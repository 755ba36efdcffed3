"""An alarm that sounds when the mix jumps and otherwise does not."""

from random import Random

from services.dataset.ledger.feedback_mix import BASELINE, LEAST_BASELINE, RECENT, Vigilance


def test_a_campaign_of_corrections_is_noticed_and_over_when_it_is_over() -> None:
    eye = Vigilance()
    for at in range(1000):
        eye.see("correction" if at % 10 == 0 else "thumbs_up")
    assert not eye.jumped("correction")
    for _ in range(RECENT // 2):
        eye.see("correction")
    assert eye.jumped("correction")
    assert not eye.jumped("thumbs_up")
    for at in range(RECENT):
        eye.see("correction" if at % 10 == 0 else "thumbs_up")
    assert not eye.jumped("correction")


def test_a_steady_mix_does_not_alarm() -> None:
    false = 0
    for seed in range(20):
        chance, eye = Random(seed), Vigilance()
        for _ in range(2000):
            eye.see("correction" if chance.random() < 0.3 else "thumbs_up")
            false += eye.jumped("correction")
    assert false == 0


def test_without_a_past_there_is_no_alarm() -> None:
    eye = Vigilance()
    for _ in range(LEAST_BASELINE + RECENT - 1):
        eye.see("correction")
        assert not eye.jumped("correction")


def test_a_lasting_change_becomes_the_new_usual() -> None:
    eye = Vigilance()
    for kind in ("thumbs_up", "correction"):
        for _ in range(BASELINE + RECENT):
            eye.see(kind)
    assert not eye.jumped("correction")
