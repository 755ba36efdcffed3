"""Effective settings of a lane on this machine, with estimates of a run, as the trainer reports
them.
"""

from shared.events import FrozenModel
from shared.events.hyperparameters import HyperparameterValue


class EffectiveSetting(FrozenModel):
    """A hyperparameter, its value in a run (null for `layers`: all), and the reason."""

    name: str
    value: HyperparameterValue | None
    reason: str


class Estimate(FrozenModel):
    """An estimate between two bounds, equal for a single value; both are null without an estimate.
    `basis` says what it is based on, or what is missing for it.
    """

    lowest: float | None = None
    highest: float | None = None
    basis: str


class LaneReport(FrozenModel):
    """Settings and estimates of a lane's next run. `memory` is in bytes, `time` in seconds."""

    model: str
    lane: str
    device: str
    settings: tuple[EffectiveSetting, ...]
    rehearsal: str
    memory: Estimate
    time: Estimate
