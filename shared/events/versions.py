"""What becomes of versions.

registry ──▶ models.versions ──▶ everyone
"""

from typing import Literal

from pydantic import FiniteFloat

from shared.events.base import Artefact, Count, Digest, Event, Id, Name


class VersionRegistered(Event):
    """A version exists. It is the registry's answer to the outcome `run_id`, `evaluation`:
    `promoted` (a VersionPromoted follows), `reevaluate` against `champion`, which has moved since the verdict, or `held`: the run has
    ended, and the champion stays for the time being. The model is on hold and a person decides, or users try the version first.
    Version 0 is the base itself: it has no run."""

    model: Name
    version: str
    number: Count
    run_id: Id | None = None
    batch_id: Id | None = None
    evaluation: Count = 0
    parent_version: str | None = None
    adapter: Artefact | None = None
    answer: Literal["promoted", "reevaluate", "held"]
    champion: str


class VersionPromoted(Event):
    """`version` is the champion now; `previous` was."""

    model: Name
    version: str
    previous: str | None = None
    adapter: Artefact | None = None
    run_id: Id | None = None
    actor: str
    reason: str


class VersionRolledBack(Event):
    """The champion went back (or forward again) from `from_version` to `version` by a decision about versions that exist."""

    model: Name
    version: str
    from_version: str
    adapter: Artefact | None = None
    actor: str
    reason: str


class VersionWithdrawn(Event):
    """A challenger that users tried is none any more; `champion` stays. When it is `quarantined`, nothing is learned from its batch and
    nothing judged by it from now on."""

    model: Name
    version: str
    champion: str
    run_id: Id | None = None
    batch_id: Id | None = None
    quarantined: bool
    actor: str
    reason: str


class VersionDeployed(Event):
    """`version` answers at `target`, verified as its evaluation was. `digest` is that of the file which is served."""

    model: Name
    version: str
    target: str
    served_name: str
    digest: Digest
    seconds: FiniteFloat


class DeploymentFailed(Event):
    """`version` could not be served at `target`; `serving` is what answers there."""

    model: Name
    version: str
    target: str
    step: Literal["probe", "push", "verify", "switch"]
    reason: str
    serving: str | None = None
