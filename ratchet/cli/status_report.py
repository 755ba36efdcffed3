"""The state of a stack as the parts of `ratchet status`: its services, its models, and the list of
matters that need a person. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from prometheus_client.parser import text_string_to_metric_families

ServiceState = Literal["ready", "not ready", "stalled", "no answer"]


@dataclass(frozen=True)
class PendingCounts:
    """Training examples of one model that wait, how many of them limits hold back, and the number
    that closes a batch, None if unknown. The sums of all shards.
    """

    pending: int = 0
    held_back: int = 0
    needed: int | None = None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Self:
        """Return the counts of a model of the registry's API."""
        report = model.get("waiting_examples")
        if report is None:
            return cls()
        held_back = sum(each["examples"] for each in report["held_back"]) + report["new_users"]
        return cls(report["usable"] + held_back, held_back, report["needed"])

    def __str__(self) -> str:
        if self.needed is None:
            return ""
        held_back = f", {self.held_back} held back" if self.held_back else ""
        return f"{self.pending} of {self.needed}{held_back}"


@dataclass(frozen=True)
class ServiceStatus:
    """A service and its exported metrics; `metrics` is the text of its `/metrics`."""

    name: str
    url: str
    state: ServiceState
    metrics: str = ""

    @property
    def lag(self) -> int | None:
        """Records not committed yet; None if the service consumes none."""
        values = self._values("ratchet_consumer_lag_records")
        return sum(int(value) for _, value in values) if values else None

    @property
    def dead_letters(self) -> int:
        """Dead letters since the service started."""
        return sum(int(value) for _, value in self._values("ratchet_dead_letters_total"))

    def _values(self, name: str) -> list[tuple[dict[str, str], float]]:
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(self.metrics)
            for sample in family.samples
            if sample.name == name
        ]


@dataclass(frozen=True)
class ModelStatus:
    """A model and its newest run, as the registry's API describes them."""

    model: dict[str, Any]
    run: dict[str, Any] | None

    @property
    def name(self) -> str:
        return str(self.model["model"])

    @property
    def waiting(self) -> PendingCounts:
        return PendingCounts.of(self.model)

    @property
    def waiting_text(self) -> str | None:
        """The waiting examples in words, with the time of the report; None without one."""
        report = self.model.get("waiting_examples")
        if report is None:
            return None
        return f"{self.name}: {report['text']} (reported {report['reported_at']})"

    @property
    def newest_run(self) -> str:
        if self.run is None:
            return "none"
        run, reason = self.run, self.run["reason"]
        if run["ended_at"] is None:
            step = f", step {run['step']} of {run['total_steps']}" if run["total_steps"] else ""
            return f"{run['state']}{step}"
        return f"{run['state']}: {reason}" if reason else str(run["state"])


def pause_text(model: Mapping[str, Any]) -> str | None:
    """Return who paused the training of a model of the registry's API, since when and why; None if
    it is not paused.
    """
    pause = model.get("pause")
    if pause is None:
        return None
    waiting = model["waiting_batches"]
    batches = "1 batch waits" if waiting == 1 else f"{waiting or 'no'} batches wait"
    return (
        f"training of {model['model']} is paused by {pause['operator'] or 'operator'} since "
        f"{pause['since']}: {pause['reason']}; {batches}"
    )


def matters(services: Iterable[ServiceStatus], models: Iterable[ModelStatus]) -> list[str]:
    """Return a line for each matter that needs a person, with the next step."""
    return [
        *(line for service in services for line in _service_matters(service)),
        *(line for model in models for line in _model_matters(model)),
    ]


def as_json(
    services: Sequence[ServiceStatus], models: Sequence[ModelStatus], lines: Sequence[str]
) -> dict[str, Any]:
    """Return the status for programs."""
    return {
        "services": [
            {
                "name": service.name,
                "url": service.url,
                "state": service.state,
                "lag": service.lag,
                "dead_letters": service.dead_letters,
            }
            for service in services
        ],
        "models": [
            {**model.model, "newest_run": model.run, "waiting": asdict(model.waiting)}
            for model in models
        ],
        "needs_a_person": list(lines),
    }


def _service_matters(service: ServiceStatus) -> Iterable[str]:
    if service.state == "no answer":
        yield f"{service.name} does not answer at {service.url}; is `ratchet up` running?"
    if service.state == "stalled":
        yield f"{service.name} makes no progress; read its log, and restart it if it stays so"
    if service.dead_letters:
        yield (
            f"{service.name} sent {service.dead_letters} records to the dead letters since its "
            "start; see `ratchet dlq list`"
        )


def _model_matters(status: ModelStatus) -> Iterable[str]:
    name, model, run = status.name, status.model, status.run
    if hold := model["hold"]:
        yield f"{name} is on hold ({hold['reason']}); end it with `ratchet release {name}`"
    if paused := pause_text(model):
        yield f"{paused}; resume it with `ratchet resume {name}`"
    if model["challenger"] and not model["trial"]:
        yield f"{name}: {model['challenger']} waits for you; serve it with `ratchet promote {name}`"
    for deployment in model["deployments"]:
        if deployment["state"] == "failed":
            yield (
                f"{name}: {deployment['version']} was not deployed on {deployment['target']}: "
                f"{deployment['reason']}"
            )
    if run is not None and run["state"] == "failed":
        yield f"{name}: the newest run failed: {run['reason']}; {run['advice']}"
    waiting = status.waiting
    if waiting.held_back and waiting.needed and waiting.pending >= waiting.needed:
        yield f"{name}: limits keep a batch from closing; see `ratchet dataset waiting {name}`"
