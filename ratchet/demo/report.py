"""The demo's report, `report.json`, for programs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ratchet.demo.accounting import EventCounts


class _ReportPart(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True
    )


class BaseResult(_ReportPart):
    """Result of the base model, before any feedback."""

    exact: FiniteFloat


class RoundSeconds(_ReportPart):
    """Durations. `total` is the time from sending the batch's last example to the first answer of
    the new version, or to the verdict if there is none.
    """

    train: FiniteFloat
    evaluate: FiniteFloat
    deploy: FiniteFloat
    total: FiniteFloat


class RoundResult(_ReportPart):
    """Result of one good batch. `heldout_before` and `heldout_after` are the mean log-likelihood
    per answer token on the held-out set, in nats; null without a verdict.
    """

    batch_id: str
    version: str | None
    verdict: str
    heldout_before: FiniteFloat | None
    heldout_after: FiniteFloat | None
    exact: FiniteFloat
    seconds: RoundSeconds


class PoisonedResult(_ReportPart):
    """Result of the attackers' batch."""

    batch_id: str
    verdict: str
    reasons: tuple[str, ...]
    champion_before: str
    champion_after: str
    exact_after: FiniteFloat


class RollbackResult(_ReportPart):
    """Result of the operator's rollback. `seconds` is the time from the request to the first answer
    of the restored version. `answer_changed` is true if the answers to the unseen tickets are that
    version's earlier ones and differ from the champion's.
    """

    seconds: FiniteFloat
    from_version: str = Field(alias="from")
    to: str
    answer_changed: bool


class DemoReport(_ReportPart):
    """Results of a demo. `poisoned` and `rollback` are null if these parts were disabled."""

    base: BaseResult
    rounds: tuple[RoundResult, ...]
    poisoned: PoisonedResult | None
    rollback: RollbackResult | None
    events: EventCounts
    wall_seconds: FiniteFloat

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
