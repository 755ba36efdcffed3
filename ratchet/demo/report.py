"""The demo's report, which programs read: `report.json`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ratchet.demo.accounting import Account


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True
    )


class Base(_Part):
    """How the base answered, before any feedback."""

    exact: FiniteFloat


class Seconds(_Part):
    """`total` counts from the moment the last example of the batch was sent to the moment the new
    version answers, or where there is none to the verdict.
    """

    train: FiniteFloat
    evaluate: FiniteFloat
    deploy: FiniteFloat
    total: FiniteFloat


class Round(_Part):
    """One good batch. Likelihoods are mean log-likelihood per answer token on the held-out set, in
    nats; null without a verdict.
    """

    batch_id: str
    version: str | None
    verdict: str
    heldout_before: FiniteFloat | None
    heldout_after: FiniteFloat | None
    exact: FiniteFloat
    seconds: Seconds


class Poisoned(_Part):
    """The batch of people who mean harm."""

    batch_id: str
    verdict: str
    reasons: tuple[str, ...]
    champion_before: str
    champion_after: str
    exact_after: FiniteFloat


class Rollback(_Part):
    """The operator's rollback. `seconds` counts from the request to the first answer of the version
    gone back to; `answer_changed` says that the answers to the unseen tickets are that version's
    old ones, and not the champion's.
    """

    seconds: FiniteFloat
    from_version: str = Field(alias="from")
    to: str
    answer_changed: bool


class Report(_Part):
    """The whole run. `poisoned` and `rollback` are null where the run was asked to leave them out."""

    base: Base
    rounds: tuple[Round, ...]
    poisoned: Poisoned | None
    rollback: Rollback | None
    events: Account
    wall_seconds: FiniteFloat

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
