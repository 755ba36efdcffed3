"""What the API answers, as the OpenAPI document describes it. There may be more fields one day:
whoever reads ignores what they do not know.
"""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.registry.lifecycle import Alias
from shared.config.model_file import RetentionSettings
from shared.events import Artefact, RunMetrics, Verdict
from shared.events.hyperparameters import Configuration

I = TypeVar("I")  # noqa: E741 (an item of a list)


class ApiModel(BaseModel):
    """The root of answers."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class ListPage(ApiModel, Generic[I]):
    """A page of a list; `next` is the `cursor` of the page after it, null at the end."""

    items: list[I]
    next: str | None = None


class CurrentAliases(ApiModel):
    """The aliases of a model; `etag` stands for them in `If-Match`."""

    champion: str | None
    previous: str | None
    challenger: str | None
    etag: str


class DeploymentCheck(ApiModel):
    """How answers at a place compared with those of the evaluation; log-probabilities in nats."""

    passed: bool
    reasons: list[str]
    probes: int
    tokens: int
    mean_difference: float | None
    seconds_per_token: float | None = None
    seconds_per_token_before: float | None = None


class Deployment(ApiModel):
    """What was last seen of a place where a model is served."""

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
    """Since when and why nothing but a person moves the champion."""

    since: datetime
    actor: str
    reason: str


class LiveRewards(ApiModel):
    """How many rewards of live feedback are kept of a version, and their mean."""

    version: str
    rewards: int
    mean: float


class CanaryTarget(ApiModel):
    """A target that the challenger was brought to."""

    target: str
    state: Annotated[str, Field(description="`ready` or `failed`")]
    reason: str
    at: datetime


class CanaryStatus(ApiModel):
    """A challenger that some users try, and what is known of it. `worse` and `better` are evidence,
    1 at first, and enough at `enough`; the means are of `pairs` rewards of each. It is `frozen`
    while the model is on hold.
    """

    version: str
    champion: str
    share: float
    began: datetime
    until: datetime
    frozen: bool
    pairs: int
    of: Annotated[int, Field(description="pairs after which it is promoted unless it is worse")]
    challenger_mean: float
    champion_mean: float
    worse: float
    better: float
    enough: float
    places: list[CanaryTarget]


class ServingName(ApiModel):
    """What to ask a place for."""

    target: str
    name: Annotated[str, Field(description="the `model` of a request, or a path")]


class Route(ApiModel):
    """Which version is to answer. `share` is the part of users that get a challenger, 0 without
    one, and `until` when that ends at the latest.
    """

    model: str
    version: str
    alias: Alias
    served: list[ServingName]
    share: float
    until: datetime | None


class Model(ApiModel):
    """A model, its aliases, whether it is on hold, the challenger that is on trial, how it does in
    live use, how many versions it has, and where it is served.
    """

    model: str
    champion: str | None
    previous: str | None
    challenger: str | None
    hold: Hold | None
    trial: CanaryStatus | None = None
    live: list[LiveRewards]
    versions: int
    deployments: list[Deployment]


class Version(ApiModel):
    """A version: what it is made of, and by which run. `verdict` is that of the run's newest
    evaluation, `withdrawn_examples` how many of those that it was made with may not be used any
    more. The base itself, version 0, has no run.
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
    """A version in the line of another."""

    version: str
    parent_version: str | None
    run_id: str | None
    batch_id: str | None
    lane: str | None
    adapter: Artefact | None
    created_at: datetime


class Lineage(ApiModel):
    """A version's ancestors, itself first, the base last."""

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


class Run(ApiModel):
    """A run with its verdict and its loss curve; `state` is its phase, then its outcome."""

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
    configuration: Configuration | None
    metrics: RunMetrics | None
    verdict: Verdict | None
    removed_at: datetime | None
    points: list[LossPoint]


class AuditEntry(ApiModel):
    """Who moved what, when, why, and on which evidence."""

    at: datetime
    actor: str
    action: str
    from_version: Annotated[str | None, Field(alias="from")]
    to_version: Annotated[str | None, Field(alias="to")]
    reason: str
    evidence: dict[str, Any]


class Withdrawal(ApiModel):
    """A user who was forgotten, by what stands for them: how many answers of the dataset service
    came, what waited, which examples in batches may not be used any more, and the versions that
    were made with some of them.
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
    """An adapter in the object store: whether it goes by the retention rule, and if not, why it
    stays.
    """

    run_id: str
    version: str | None
    uri: str
    ended_at: datetime | None
    goes: bool
    stays_because: list[str]


class RetentionPlan(ApiModel):
    """What the retention rule of a model would do at present; without a rule everything stays."""

    model: str
    rule: RetentionSettings | None
    items: list[AdapterRetention]


class ChampionMove(ApiModel):
    """A move of the champion. `deployed` says whether `to` answers everywhere already, and
    `seconds` how long that took.
    """

    from_version: Annotated[str | None, Field(alias="from")]
    to_version: Annotated[str, Field(alias="to")]
    deployed: bool
    seconds: float
