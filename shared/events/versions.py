"""What becomes of versions.

registry ──▶ models.versions ──▶ everyone
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from shared.events.base import Artefact, Count, Digest, Event, Id, Name


class VersionRegistered(Event):
    """A version exists. It is the registry's answer to the outcome `run_id`, `evaluation`:
    `promoted` (a VersionPromoted follows), `reevaluate` against `champion`, which has moved since
    the verdict, or `held`: the run has ended, and the champion stays for the time being. The model
    is on hold and a person decides, or users try the version first. Version 0 is the base itself:
    it has no run.
    """

    model: Annotated[Name, Field(description="the model's name")]
    version: Annotated[str, Field(description="the version's id")]
    number: Annotated[
        Count, Field(description="versions of a model are counted; 0 is the base itself")
    ]
    run_id: Annotated[Id | None, Field(description="the run that made it")] = None
    batch_id: Annotated[Id | None, Field(description="the batch that it was trained on")] = None
    evaluation: Annotated[Count, Field(description="the evaluation that this answers")] = 0
    parent_version: Annotated[
        str | None, Field(description="the version that training began with")
    ] = None
    adapter: Annotated[Artefact | None, Field(description="what makes the version of its base")] = (
        None
    )
    answer: Annotated[
        Literal["promoted", "reevaluate", "held"], Field(description="what becomes of it")
    ]
    champion: Annotated[str, Field(description="the version that is served when this is said")]


class VersionPromoted(Event):
    """`version` is the champion now; `previous` was."""

    model: Annotated[Name, Field(description="the model's name")]
    version: Annotated[str, Field(description="the champion from now on")]
    previous: Annotated[str | None, Field(description="the champion until now")] = None
    adapter: Annotated[Artefact | None, Field(description="what makes the version of its base")] = (
        None
    )
    run_id: Annotated[Id | None, Field(description="the run that made it")] = None
    actor: Annotated[str, Field(description="who or what moved it")]
    reason: Annotated[str, Field(description="why")]


class VersionRolledBack(Event):
    """The champion went back (or forward again) from `from_version` to `version` by a decision
    about versions that exist.
    """

    model: Annotated[Name, Field(description="the model's name")]
    version: Annotated[str, Field(description="the champion from now on")]
    from_version: Annotated[str, Field(description="the champion until now")]
    adapter: Annotated[
        Artefact | None,
        Field(description="what makes the version of its base; none for the base itself"),
    ] = None
    actor: Annotated[str, Field(description="who or what moved it")]
    reason: Annotated[str, Field(description="why")]


class VersionWithdrawn(Event):
    """A challenger that users tried is none any more; `champion` stays. When it is `quarantined`,
    nothing is learned from its batch and nothing judged by it from now on.
    """

    model: Annotated[Name, Field(description="the model's name")]
    version: Annotated[str, Field(description="the challenger that was")]
    champion: Annotated[str, Field(description="the version that stays champion")]
    run_id: Annotated[Id | None, Field(description="the run that made the challenger")] = None
    batch_id: Annotated[Id | None, Field(description="the batch it was made of")] = None
    quarantined: Annotated[
        bool,
        Field(
            description="whether nothing is learned from its batch, and nothing judged by it, from now on"
        ),
    ]
    actor: Annotated[str, Field(description="who or what ended the trial")]
    reason: Annotated[str, Field(description="why")]


class VersionDeployed(Event):
    """`version` answers at `target`, verified as its evaluation was. `digest` is that of the file
    which is served.
    """

    model: Annotated[Name, Field(description="the model's name")]
    version: Annotated[str, Field(description="the version that answers")]
    target: Annotated[str, Field(description="the deploy target of the model file")]
    served_name: Annotated[str, Field(description="what it is called there")]
    digest: Annotated[Digest, Field(description="of the file that is served")]
    seconds: Annotated[FiniteFloat, Field(description="how long the deployment took")]


class DeploymentFailed(Event):
    """`version` could not be served at `target`; `serving` is what answers there."""

    model: Annotated[Name, Field(description="the model's name")]
    version: Annotated[str, Field(description="the version that could not be served")]
    target: Annotated[str, Field(description="the deploy target of the model file")]
    step: Annotated[
        Literal["probe", "push", "verify", "switch"], Field(description="where it failed")
    ]
    reason: Annotated[str, Field(description="why")]
    serving: Annotated[str | None, Field(description="the version that answers there")] = None
