"""The demo's report, which programs read: `report.json`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ratchet.demo.accounting import EventCounts


class _ReportPart(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True
    )


class BaseResult(_ReportPart):
    """How the base answered, before any feedback."""

    exact: FiniteFloat


class RoundSeconds(_ReportPart):
    """`total` counts from the moment the last example of the batch was sent to the moment the new
    version answers, or where there is none to the verdict.
    """

    train: FiniteFloat
    evaluate: FiniteFloat
    deploy: FiniteFloat
    total: FiniteFloat


class RoundResult(_ReportPart):
    """One good batch. Likelihoods are mean log-likelihood per answer token on the held-out set, in
    nats; null without a verdict.
    """

    batch_id: str
    version: str | None
    verdict: str
    heldout_before: FiniteFloat | None
    heldout_after: FiniteFloat | None
    exact: FiniteFloat
    seconds: RoundSeconds


class PoisonedResult(_ReportPart):
    """The batch of people who mean harm."""

    batch_id: str
    verdict: str
    reasons: tuple[str, ...]
    champion_before: str
    champion_after: str
    exact_after: FiniteFloat


class RollbackResult(_ReportPart):
    """The operator's rollback. `seconds` counts from the request to the first answer of the version
    gone back to; `answer_changed` says that the answers to the unseen tickets are that version's
    old ones, and not the champion's.
    """

    seconds: FiniteFloat
    from_version: str = Field(alias="from")
    to: str
    answer_changed: bool


class DemoReport(_ReportPart):
    """The whole run. `poisoned` and `rollback` are null where the run was asked to leave them out."""

    base: BaseResult
    rounds: tuple[RoundResult, ...]
    poisoned: PoisonedResult | None
    rollback: RollbackResult | None
    events: EventCounts
    wall_seconds: FiniteFloat

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
