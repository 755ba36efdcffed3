"""Response schemas of the API, for the OpenAPI document. Later releases may add fields; clients
ignore unknown ones.
"""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.registry.lifecycle import Alias
from shared.config.model_file import RetentionSettings
from shared.events import Artefact, RunMetrics, Verdict, WaitingStatus
from shared.events.hyperparameters import Configuration

I = TypeVar("I")  # noqa: E741 (an item of a list)


class ApiModel(BaseModel):
    """Base class of the responses."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class ListPage(ApiModel, Generic[I]):
    """A page of a list. `next` is the `cursor` of the next page, null at the end."""

    items: list[I]
    next: str | None = None


class CurrentAliases(ApiModel):
    """The aliases of a model, with their `etag` for `If-Match`."""

    champion: str | None
    previous: str | None
    challenger: str | None
    etag: str


class DeploymentCheck(ApiModel):
    """Comparison of the answers on a target with those of the evaluation; log-probabilities in
    nats.
    """

    passed: bool
    reasons: list[str]
    probes: int
    tokens: int
    mean_difference: float | None
    seconds_per_token: float | None = None
    seconds_per_token_before: float | None = None


class Deployment(ApiModel):
    """The newest deployment of a model on a target."""

    target: str
    version: str
    state: Annotated[str, Field(description="`deployed` or `failed`")]
    step: str | None
    reason: str
    digest: str | None
    seconds: float
    finding: DeploymentCheck | None
    at: datetime


class Hold(ApiModel):
    """A hold: only people move the champion. `operator` is the name of the token's owner."""

    since: datetime
    actor: str
    operator: str | None
    reason: str


class Pause(ApiModel):
    """A pause of training: no new run starts. `operator` is the name of the token's owner."""

    since: datetime
    operator: str | None
    reason: str


class LiveRewards(ApiModel):
    """The number of stored live rewards of a version, and their mean."""

    version: str
    rewards: int
    mean: float


class CanaryTarget(ApiModel):
    """The challenger's deployment on a target."""

    target: str
    state: Annotated[str, Field(description="`ready` or `failed`")]
    reason: str
    at: datetime


class CanaryStatus(ApiModel):
    """A canary trial. `worse` and `better` are e-values, 1 at first, and decide the trial at
    `enough`. The means are over `pairs` rewards of each version. The trial is `frozen` while the
    model is on hold.
    """

    version: str
    champion: str
    share: float
    began: datetime
    until: datetime
    frozen: bool
    pairs: int
    of: Annotated[
        int, Field(description="number of pairs after which it is promoted unless it is worse")
    ]
    challenger_mean: float
    champion_mean: float
    worse: float
    better: float
    enough: float
    places: list[CanaryTarget]


class ServingName(ApiModel):
    """The name of a version on a target."""

    target: str
    name: Annotated[str, Field(description="the `model` of a request, or a path")]


class Route(ApiModel):
    """The version that serves a user. `share` is the share of users that get a challenger, 0
    without one, and `until` is the latest end of its trial.
    """

    model: str
    version: str
    alias: Alias
    served: list[ServingName]
    share: float
    until: datetime | None


class WaitingShard(ApiModel):
    """Examples of one shard of a model that wait, in words."""

    shard: int
    text: str
    reported_at: datetime


class WaitingExamples(WaitingStatus):
    """Examples of all shards of a model that wait for a batch, as the dataset service reported them
    last: it reports changes. Of what a batch needs, the shard that closes one first.
    """

    model_config = ConfigDict(extra="allow")

    text: Annotated[str, Field(description="the same in words")]
    reported_at: Annotated[datetime, Field(description="time of the newest report")]
    shards: list[WaitingShard]


class Model(ApiModel):
    """A model with its aliases, hold, canary trial, live rewards and deployments. `pause` is set
    while its training is paused; `waiting_batches` counts the batches whose run has not started,
    `waiting_runs` names these runs, the oldest batch first. `waiting_examples` is null without a
    report of the dataset service.
    """

    model: str
    champion: str | None
    previous: str | None
    challenger: str | None
    hold: Hold | None
    pause: Pause | None = None
    waiting_batches: int = 0
    waiting_runs: list[str] = []
    waiting_examples: WaitingExamples | None = None
    trial: CanaryStatus | None = None
    live: list[LiveRewards]
    versions: int
    deployments: list[Deployment]


class Version(ApiModel):
    """A version with its run and artefacts. `verdict` is of the run's newest evaluation,
    `withdrawn_examples` counts the withdrawn examples that it was made with. The base itself,
    version 0, has no run.
    """

    model: str
    version: str
    number: int
    aliases: list[Alias]
    created_at: datetime
    parent_version: str | None
    run_id: str | None
    batch_id: str | None
    lane: str | None
    path: str | None
    digest: str | None
    adapter: Artefact | None
    base_digest: str | None
    model_digest: str
    training_loss: float | None
    epochs: int | None
    configuration: Configuration | None
    metrics: RunMetrics | None
    verdict: Verdict | None
    withdrawn_examples: int
    removed_at: datetime | None
    removed_reason: str | None


class Ancestor(ApiModel):
    """A version in the lineage of another."""

    version: str
    parent_version: str | None
    run_id: str | None
    batch_id: str | None
    lane: str | None
    adapter: Artefact | None
    created_at: datetime


class Lineage(ApiModel):
    """A version and its ancestors, the base last."""

    model: str
    version: str
    lineage: list[Ancestor]


class LossPoint(ApiModel):
    """One step of a loss curve."""

    step: int
    loss: float
    learning_rate: float | None
    gradient_norm: float | None
    tokens_per_second: float | None
    at: datetime


class RunSummary(ApiModel):
    """A training run. `state` is its phase, then its outcome; `cancelled` until a person resumes
    it, then `waiting` until it starts again.
    """

    run_id: str
    model: str
    batch_id: str
    lane: str | None
    parent_version: str | None
    version: str | None
    state: str
    step: int
    total_steps: int
    evaluation: int
    reason: str
    advice: str
    started_at: datetime
    ended_at: datetime | None


class Run(RunSummary):
    """A training run with its verdict and loss curve."""

    configuration: Configuration | None
    metrics: RunMetrics | None
    verdict: Verdict | None
    removed_at: datetime | None
    points: list[LossPoint]


class AuditEntry(ApiModel):
    """An audited decision: actor, action, time, reason and evidence. `operator` is the name of the
    token's owner, null for components and for tokens without a name.
    """

    at: datetime
    actor: str
    operator: str | None
    action: str
    from_version: Annotated[str | None, Field(alias="from")]
    to_version: Annotated[str | None, Field(alias="to")]
    reason: str
    evidence: dict[str, Any]


class ChainedAuditEntry(AuditEntry):
    """An audited decision with its place in the hash chain. `hash` is the SHA-256, in hexadecimal,
    of the entry's fields (docs/audit.md has the formula); the first entry's `previous_hash` is 64
    zeros.
    """

    number: int
    model: str
    previous_hash: str
    hash: str


class AuditPage(ListPage[ChainedAuditEntry]):
    """A page of the audit log. `unchained` counts the entries of releases without the hash chain,
    which are not listed.
    """

    unchained: int


class Withdrawal(ApiModel):
    """The withdrawal of a user's examples, by the user's digest. `answers` counts the
    events of the dataset service, `waiting` and `examples` the examples outside and inside
    batches; `versions` were made with some of them.
    """

    forgotten: str
    user: str
    at: datetime
    reason: str | None
    answers: int
    waiting: int
    examples: int
    batches: int
    versions: list[str]


class AdapterRetention(ApiModel):
    """An adapter in the object store: whether the retention rule removes it, and if not, why it
    stays.
    """

    run_id: str
    version: str | None
    uri: str
    ended_at: datetime | None
    goes: bool
    stays_because: list[str]


class RetentionPlan(ApiModel):
    """The plan of a model's retention rule. Without a rule, every adapter stays."""

    model: str
    rule: RetentionSettings | None
    items: list[AdapterRetention]


class ChampionMove(ApiModel):
    """A move of the champion. `deployed` is true when every target serves `to`, and `seconds` is
    the duration of the request.
    """

    from_version: Annotated[str | None, Field(alias="from")]
    to_version: Annotated[str, Field(alias="to")]
    deployed: bool
    seconds: float
