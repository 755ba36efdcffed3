"""Events of the life of a version.

registry ──▶ models.versions ──▶ everyone
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat

from shared.events.base import Artefact, Count, Digest, Event, Id, Name


class VersionRegistered(Event):
    """A version was registered. It is the registry's answer to the outcome `run_id`, `evaluation`:
    `promoted` (a VersionPromoted follows), `reevaluate` against `champion`, which has changed since
    the verdict, or `held`: the run has ended and the champion stays for now, because the model is
    on hold until an operator decides, or because the version starts as a canary. Version 0 is the
    base itself: it has no run.
    """

    model: Annotated[Name, Field(description="name of the model")]
    version: Annotated[str, Field(description="id of the version")]
    number: Annotated[
        Count, Field(description="version number of the model, from 1; 0 is the base itself")
    ]
    run_id: Annotated[Id | None, Field(description="run that produced the version")] = None
    batch_id: Annotated[Id | None, Field(description="batch that the version was trained on")] = (
        None
    )
    evaluation: Annotated[Count, Field(description="evaluation that this is the answer to")] = 0
    parent_version: Annotated[
        str | None, Field(description="version that training started from")
    ] = None
    adapter: Annotated[Artefact | None, Field(description="adapter of the version")] = None
    answer: Annotated[
        Literal["promoted", "reevaluate", "held"], Field(description="decision on the version")
    ]
    champion: Annotated[str, Field(description="champion at this time")]


class VersionPromoted(Event):
    """`version` became the champion in place of `previous`."""

    model: Annotated[Name, Field(description="name of the model")]
    version: Annotated[str, Field(description="the new champion")]
    previous: Annotated[str | None, Field(description="the previous champion")] = None
    adapter: Annotated[Artefact | None, Field(description="adapter of the version")] = None
    run_id: Annotated[Id | None, Field(description="run that produced the version")] = None
    actor: Annotated[str, Field(description="person or component that made the change")]
    reason: Annotated[str, Field(description="reason")]


class VersionRolledBack(Event):
    """The champion changed from `from_version` back (or forward again) to the existing version
    `version`.
    """

    model: Annotated[Name, Field(description="name of the model")]
    version: Annotated[str, Field(description="the new champion")]
    from_version: Annotated[str, Field(description="the previous champion")]
    adapter: Annotated[
        Artefact | None,
        Field(description="adapter of the version; none for the base itself"),
    ] = None
    actor: Annotated[str, Field(description="person or component that made the change")]
    reason: Annotated[str, Field(description="reason")]


class VersionWithdrawn(Event):
    """The challenger was withdrawn after its canary trial; `champion` stays. When it is
    `quarantined`, its batch is no longer used for training or evaluation.
    """

    model: Annotated[Name, Field(description="name of the model")]
    version: Annotated[str, Field(description="the withdrawn challenger")]
    champion: Annotated[str, Field(description="version that stays champion")]
    run_id: Annotated[Id | None, Field(description="run that produced the challenger")] = None
    batch_id: Annotated[
        Id | None, Field(description="batch that the challenger was trained on")
    ] = None
    quarantined: Annotated[
        bool,
        Field(description="true if its batch is no longer used for training and evaluation"),
    ]
    actor: Annotated[str, Field(description="person or component that ended the canary")]
    reason: Annotated[str, Field(description="reason")]


class VersionDeployed(Event):
    """`version` is served at `target`, verified against its evaluation. `digest` is that of the
    served file.
    """

    model: Annotated[Name, Field(description="name of the model")]
    version: Annotated[str, Field(description="the deployed version")]
    target: Annotated[str, Field(description="deploy target in the model file")]
    served_name: Annotated[str, Field(description="name of the version at the target")]
    digest: Annotated[Digest, Field(description="digest of the served file")]
    seconds: Annotated[FiniteFloat, Field(description="duration of the deployment")]


class DeploymentFailed(Event):
    """`version` could not be deployed to `target`; `serving` is the version served there."""

    model: Annotated[Name, Field(description="name of the model")]
    version: Annotated[str, Field(description="the version that could not be deployed")]
    target: Annotated[str, Field(description="deploy target in the model file")]
    step: Annotated[Literal["probe", "push", "verify", "switch"], Field(description="failed step")]
    reason: Annotated[str, Field(description="reason")]
    serving: Annotated[str | None, Field(description="version served there")] = None


VersionEvent: TypeAlias = (
    VersionRegistered
    | VersionPromoted
    | VersionRolledBack
    | VersionWithdrawn
    | VersionDeployed
    | DeploymentFailed
)
"""Events that the registry decides, about one model each."""
