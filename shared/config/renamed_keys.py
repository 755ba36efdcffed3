"""Renamed keys of the model file: the old name is still read, and both at once are an error."""

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices
from pydantic_core import PydanticCustomError

RENAMED_KEYS: Mapping[str, Mapping[str, str]] = {
    "curation": {"new_user_hours": "newcomer_hours"},
    "gate": {
        "regression_margin": "retention_margin",
        "regression_set": "retention",
        "regression_prompts": "canaries",
        "reward_hacking": "tripwire",
    },
}
"""Old names of renamed keys, by section. Model files may still use them."""


def both_names(section: str, key: str) -> AliasChoices:
    return AliasChoices(key, RENAMED_KEYS[section][key])


def without_duplicate_keys(values: Any, section: str) -> Any:
    """Return `values`, unless a renamed key is given under both names."""
    for new, old in RENAMED_KEYS[section].items():
        if isinstance(values, Mapping) and new in values and old in values:
            raise PydanticCustomError(
                "duplicate_key",
                f"{new} and {old} are two names of the same key; remove {old}",
            )
    return values
