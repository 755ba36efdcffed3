"""Which adapters in the object store may go. Pure.

An adapter stays while there is a reason for it; the reasons are told, so that whoever asks can see
them. The first four hold whatever a model file says: what an alias names, what a target serves,
what the history names as champion, what a run may still need.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.registry.lifecycle import version_number
from shared.config.model_file import RetentionSettings


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter that a run left: of a version, or of a candidate that became none. `ended` is when
    the run was last heard of, None while it goes on.
    """

    run_id: str
    version: str | None
    uri: str
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class InUse:
    """Versions that something refers to: by alias, by target, and those that the history names as
    champion.
    """

    aliases: Mapping[str, str]
    served: Mapping[str, Collection[str]]
    champions: Collection[str]


@dataclass(frozen=True, slots=True)
class RetentionDecision:
    """An adapter, and why it stays; without a reason it may go."""

    stored: StoredAdapter
    reasons: tuple[str, ...]

    @property
    def removable(self) -> bool:
        return not self.reasons


def decide_removals(
    stored: Sequence[StoredAdapter], in_use: InUse, rule: RetentionSettings | None, now: datetime
) -> list[RetentionDecision]:
    """Every adapter of a model with the reasons for which it stays, in the order of `stored`."""
    versions = sorted(
        (each.version for each in stored if each.version is not None),
        key=version_number,
        reverse=True,
    )
    newest = frozenset(versions[: rule.versions]) if rule else frozenset()
    return [
        RetentionDecision(each, (*_referred(each, in_use), *_recent(each, newest, rule, now)))
        for each in stored
    ]


def _referred(stored: StoredAdapter, in_use: InUse) -> list[str]:
    version = stored.version
    reasons = [f"is {alias}" for alias, named in in_use.aliases.items() if named == version]
    reasons += [
        f"served at {target}" for target, served in in_use.served.items() if version in served
    ]
    if version in in_use.champions:
        reasons.append("the history names it as champion")
    if stored.ended is None:
        reasons.append("its run has not ended")
    return reasons


def _recent(
    stored: StoredAdapter, newest: Collection[str], rule: RetentionSettings | None, now: datetime
) -> list[str]:
    if rule is None:
        return ["the model file has no retention"]
    reasons = [f"one of the {rule.versions} newest versions"] if stored.version in newest else []
    if stored.ended is not None and now - stored.ended < timedelta(days=rule.days):
        reasons.append(f"its run ended less than {rule.days:g} days ago")
    return reasons
