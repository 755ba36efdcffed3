"""Metrics and log lines of the registry's decisions."""

from collections.abc import Iterable

from services.registry.lifecycle import version_number
from services.registry.rollout.canary_trial import TrialStatus
from services.registry.rollout.live_monitor import MonitorResult
from shared.config.models import Models
from shared.events import ControlEvent, Event, VersionPromoted, VersionRolledBack, VersionWithdrawn
from shared.logs import Log
from shared.observability.metrics import Metrics


class DecisionReport:
    """Reports decisions to metrics and log."""

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log

    def init_series(self, models: Models, topics: Iterable[str]) -> None:
        """Export the counters of all declared models from the start, at 0."""
        for topic in topics:
            self._metrics.init_series("ratchet_dead_letters_total", topic=topic)
        for name, model in models.files.items():
            self._metrics.init_series("ratchet_registry_promotions_total", model=name)
            if model.canary is not None:
                self._init_trial_series(name)
            for actor in ("operator", "monitor"):
                self._metrics.init_series(
                    "ratchet_registry_rollbacks_total", model=name, actor=actor
                )

    def _init_trial_series(self, model: str) -> None:
        self._metrics.set("ratchet_registry_on_trial", 0, model=model)
        for direction in ("worse", "better"):
            self._metrics.set("ratchet_registry_trial_wealth", 1, model=model, direction=direction)
        for quarantined in ("true", "false"):
            self._metrics.init_series(
                "ratchet_registry_withdrawals_total", model=model, quarantined=quarantined
            )

    def report_event(self, event: Event) -> None:
        """Report a decided event."""
        if isinstance(event, VersionPromoted):
            self._metrics.count("ratchet_registry_promotions_total", model=event.model)
            self.show_champion(event.model, event.version)
            self._log.info(
                "promoted",
                model=event.model,
                version=event.version,
                previous=event.previous,
                reason=event.reason,
            )
        elif isinstance(event, VersionRolledBack):
            self._metrics.count(
                "ratchet_registry_rollbacks_total", model=event.model, actor=event.actor
            )
            self.show_champion(event.model, event.version)
            self._log.info(
                "rolled back",
                model=event.model,
                version=event.version,
                origin=event.from_version,
                reason=event.reason,
            )
        elif isinstance(event, VersionWithdrawn):
            self._metrics.count(
                "ratchet_registry_withdrawals_total",
                model=event.model,
                quarantined=str(event.quarantined).lower(),
            )
            self._log.info(
                "withdrawn", model=event.model, version=event.version, reason=event.reason
            )

        elif isinstance(event, ControlEvent):
            self._log.info(
                "training controlled",
                decision=type(event).__name__,
                model=event.model,
                run=getattr(event, "run_id", None),
                actor=event.actor,
                reason=event.reason,
            )

    def report_monitor(self, model: str, result: MonitorResult) -> None:
        """Report the evidence of the monitor, and a champion that is worse but was not rolled
        back.
        """
        evidence = result.evidence
        if evidence is not None:
            self._metrics.set(
                "ratchet_registry_live_reward", evidence.champion, model=model, alias="champion"
            )
            self._metrics.set(
                "ratchet_registry_live_reward", evidence.previous, model=model, alias="previous"
            )
            self._metrics.set("ratchet_registry_live_wealth", evidence.e_value, model=model)
        self._metrics.set("ratchet_registry_live_worse", result.worse, model=model)
        if result.worse and result.moved is None:
            self._log.warning(
                "champion worse than the previous version in live use",
                model=model,
                evidence=evidence,
            )

    def report_trial(self, model: str, status: TrialStatus | None) -> None:
        """Report the evidence of a canary trial, and whether one is running."""
        running = status is not None and status.ending is None
        self._metrics.set("ratchet_registry_on_trial", running, model=model)
        if status is None:
            return
        evidence = status.evidence
        for direction, e_value in (("worse", evidence.worse), ("better", evidence.better)):
            self._metrics.set(
                "ratchet_registry_trial_wealth", e_value, model=model, direction=direction
            )

    def show_champion(self, model: str, version: str | None) -> None:
        """Export the number of the champion, 0 without one."""
        number = version_number(version) if version else 0
        self._metrics.set("ratchet_registry_champion_number", number, model=model)

    def show_hold(self, model: str, on_hold: bool) -> None:
        """Export whether a model is on hold."""
        self._metrics.set("ratchet_registry_on_hold", on_hold, model=model)

    def show_pause(self, model: str, paused: bool) -> None:
        """Export whether training of a model is paused."""
        self._metrics.set("ratchet_registry_training_paused", paused, model=model)
