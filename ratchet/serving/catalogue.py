"""The file of each tag and the tag of each alias. Tags are immutable, aliases move.

Pure: every change returns a new catalogue.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.errors import RatchetError
from shared.events import Digest


class CatalogueConflict(RatchetError):
    """A change that the catalogue does not allow; the message names an alternative."""


class ModelNotFound(RatchetError):
    """No tag or alias has this name."""


class TaggedFile(BaseModel):
    """The file of a tag, and the variables of its chat template."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    digest: Digest
    template: TemplateVariables = DEFAULT_VARIABLES


class Catalogue(BaseModel):
    """All tags and aliases of a host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: Mapping[str, TaggedFile] = {}
    aliases: Mapping[str, str] = {}

    def resolve(self, name: str) -> str:
        """Return the tag that `name`, a tag or an alias, currently names. Raises ModelNotFound."""
        tag = self.aliases.get(name, name)
        if tag not in self.tags:
            names = ", ".join(sorted([*self.aliases, *self.tags])) or "none"
            raise ModelNotFound(f"unknown model {name!r}; available: {names}")
        return tag

    def with_tag(self, tag: str, entry: TaggedFile) -> Self:
        """Add a tag. An existing tag may get a new path or variables; raises CatalogueConflict if
        the tag has another digest.
        """
        current = self.tags.get(tag)
        if current is not None and current.digest != entry.digest:
            raise CatalogueConflict(
                f"tag {tag!r} names {current.digest} and tags never change; use a new tag "
                f"for {entry.digest}"
            )
        if tag in self.aliases:
            raise CatalogueConflict(f"{tag!r} is an alias; choose another name for the tag")
        return self.model_copy(update={"tags": {**self.tags, tag: entry}})

    def with_alias(self, alias: str, tag: str) -> Self:
        """Move an alias. Raises ModelNotFound if the tag is unknown, CatalogueConflict if the
        alias has the name of a tag.
        """
        if tag not in self.tags:
            raise ModelNotFound(f"unknown tag {tag!r}; add the model first")
        if alias in self.tags:
            raise CatalogueConflict(
                f"{alias!r} is a tag, and tags never change; choose another name for the alias"
            )
        return self.model_copy(update={"aliases": {**self.aliases, alias: tag}})

    def without_alias(self, alias: str) -> Self:
        """Remove an alias; its tag stays. Raises ModelNotFound."""
        if alias not in self.aliases:
            raise ModelNotFound(f"unknown alias {alias!r}")
        return self.model_copy(
            update={"aliases": {name: tag for name, tag in self.aliases.items() if name != alias}}
        )

    def without_tag(self, tag: str) -> Self:
        """Remove a tag. Raises ModelNotFound if it does not exist, CatalogueConflict if an alias
        names it.
        """
        if tag not in self.tags:
            raise ModelNotFound(f"unknown tag {tag!r}")
        if holders := [alias for alias, named in self.aliases.items() if named == tag]:
            raise CatalogueConflict(
                f"{tag!r} has the alias {', '.join(holders)}; move the alias first"
            )
        return self.model_copy(
            update={"tags": {name: entry for name, entry in self.tags.items() if name != tag}}
        )

    @property
    def aliased_tags(self) -> frozenset[str]:
        """Tags with an alias; they stay loaded."""
        return frozenset(self.aliases.values())


def tags_to_unload(
    loaded: Sequence[str], busy: Collection[str], aliased: Collection[str], limit: int
) -> list[str]:
    """Return the loaded tags to unload so that `limit` are left. `loaded` is ordered by last use,
    oldest first.

    Busy tags and tags with an alias are never unloaded, so that more than `limit` may stay.
    """
    free = [tag for tag in loaded if tag not in busy and tag not in aliased]
    return free[: max(0, len(loaded) - limit)]
