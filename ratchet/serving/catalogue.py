"""What the host knows: which file stands behind a tag, and which tag behind an alias. Tags are
immutable, aliases move.

Pure: every change is a new value.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from shared.errors import RatchetError
from shared.events import Digest


class CatalogueConflict(RatchetError):
    """A change that the catalogue does not allow; the message says what to do instead."""


class ModelNotFound(RatchetError):
    """No tag or alias has this name."""


class TaggedFile(BaseModel):
    """The file behind a tag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    digest: Digest


class Catalogue(BaseModel):
    """All tags and aliases of a host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: Mapping[str, TaggedFile] = {}
    aliases: Mapping[str, str] = {}

    def resolve(self, name: str) -> str:
        """The tag that `name`, a tag or an alias, stands for at present. Raises NotThere."""
        tag = self.aliases.get(name, name)
        if tag not in self.tags:
            known = ", ".join(sorted([*self.aliases, *self.tags])) or "none"
            raise ModelNotFound(f"no model is called {name!r}; known are: {known}")
        return tag

    def with_tag(self, tag: str, entry: TaggedFile) -> Self:
        """Add a tag. The same file again may lie elsewhere now; raises Conflict when the tag stands
        for other bytes.
        """
        known = self.tags.get(tag)
        if known is not None and known.digest != entry.digest:
            raise CatalogueConflict(
                f"tag {tag!r} stands for {known.digest} and tags never change; use a new tag "
                f"for {entry.digest}"
            )
        if tag in self.aliases:
            raise CatalogueConflict(f"{tag!r} is an alias; choose another name for the tag")
        return self.model_copy(update={"tags": {**self.tags, tag: entry}})

    def with_alias(self, alias: str, tag: str) -> Self:
        """Move an alias. Raises NotThere when the tag is unknown, Conflict when the alias has the
        name of a tag.
        """
        if tag not in self.tags:
            raise ModelNotFound(f"no tag is called {tag!r}; put the model first")
        if alias in self.tags:
            raise CatalogueConflict(
                f"{alias!r} is a tag, and tags never change; choose another name for the alias"
            )
        return self.model_copy(update={"aliases": {**self.aliases, alias: tag}})

    def without_alias(self, alias: str) -> Self:
        """Forget an alias; its tag stays. Raises NotThere."""
        if alias not in self.aliases:
            raise ModelNotFound(f"no alias is called {alias!r}")
        return self.model_copy(
            update={"aliases": {name: tag for name, tag in self.aliases.items() if name != alias}}
        )

    def without_tag(self, tag: str) -> Self:
        """Forget a tag. Raises NotThere when there is none, Conflict while an alias names it."""
        if tag not in self.tags:
            raise ModelNotFound(f"no tag is called {tag!r}")
        if holders := [alias for alias, named in self.aliases.items() if named == tag]:
            raise CatalogueConflict(
                f"{tag!r} is named by {', '.join(holders)}; move the alias first"
            )
        return self.model_copy(
            update={"tags": {name: entry for name, entry in self.tags.items() if name != tag}}
        )

    @property
    def aliased_tags(self) -> frozenset[str]:
        """The tags that an alias names; they stay loaded."""
        return frozenset(self.aliases.values())


def tags_to_unload(
    loaded: Sequence[str], busy: Collection[str], aliased: Collection[str], limit: int
) -> list[str]:
    """Which of the loaded tags, given in order of last use, oldest first, have to go so that
    `limit` are left.

    Never one that an alias names or that is answering; so more than `limit` may stay.
    """
    free = [tag for tag in loaded if tag not in busy and tag not in aliased]
    return free[: max(0, len(loaded) - limit)]
