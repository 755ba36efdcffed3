"""Retention rule: which adapters in the object store may be deleted. Pure.

An adapter is kept while there is a reason for it; the reasons are returned so that operators can
see them. Four of them hold whatever the model file configures: an alias names the version, a target
serves it, it was champion once, its run has not ended.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.registry.lifecycle import version_number
from shared.config.model_file import RetentionSettings


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """Adapter of a run: of a version, or of a candidate that did not become one (`version` None).

    `ended` is the last update of the run, None while it continues.
    """

    run_id: str
    version: str | None
    uri: str
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class InUse:
    """Versions that are referred to: by an alias, by a target, or in the history as a champion."""

    aliases: Mapping[str, str]
    served: Mapping[str, Collection[str]]
    champions: Collection[str]


@dataclass(frozen=True, slots=True)
class RetentionDecision:
    """An adapter and the reasons to keep it; without any it may be deleted."""

    stored: StoredAdapter
    reasons: tuple[str, ...]

    @property
    def removable(self) -> bool:
        return not self.reasons


def decide_removals(
    stored: Sequence[StoredAdapter], in_use: InUse, rule: RetentionSettings | None, now: datetime
) -> list[RetentionDecision]:
    """Return every adapter of a model with the reasons to keep it, in the order of `stored`."""
    versions = sorted(
        (adapter.version for adapter in stored if adapter.version is not None),
        key=version_number,
        reverse=True,
    )
    newest = frozenset(versions[: rule.versions]) if rule else frozenset()
    return [
        RetentionDecision(
            adapter, (*_references(adapter, in_use), *_recency(adapter, newest, rule, now))
        )
        for adapter in stored
    ]


def _references(stored: StoredAdapter, in_use: InUse) -> list[str]:
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


def _recency(
    stored: StoredAdapter, newest: Collection[str], rule: RetentionSettings | None, now: datetime
) -> list[str]:
    if rule is None:
        return ["the model file has no retention"]
    reasons = [f"one of the {rule.versions} newest versions"] if stored.version in newest else []
    if stored.ended is not None and now - stored.ended < timedelta(days=rule.days):
        reasons.append(f"its run ended less than {rule.days:g} days ago")
    return reasons
