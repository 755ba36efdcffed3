"""Recipe of a dataset: a YAML file with the wording of questions, and templates with values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)

from services.dataset.building.slots import slots_of
from services.dataset.teacher.settings import TeacherSettings
from shared.errors import Misconfigured
from shared.events import FrozenModel
from shared.identity import digest_of

_MAX_FILE_BYTES = 1 << 20

Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000, strip_whitespace=True)]
SlotName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=60)]
Scalar = str | int | float
Value = Scalar | dict[SlotName, Scalar]
"""A value of a slot, or several that belong together, such as a name and a price."""


MAX_WORDINGS = 12

Wordings = Annotated[
    tuple[Text, ...],
    Field(max_length=MAX_WORDINGS),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    # As earlier versions wrote it, so that the digest of a recipe stays the same.
    PlainSerializer(lambda value: value[0] if len(value) == 1 else value),
]
"""One wording, several, or none: a model that has learned a fact in several wordings also knows it
in others (Allen-Zhu & Li 2023, arXiv:2309.14316).
"""


class QuestionWording(FrozenModel):
    """Wordings of the questions about documents, with slots in braces. Each fact has a
    question in each wording of its kind; a kind without a wording has no examples.
    """

    section: Wordings = ("What does “{title}” say about {heading}?",)
    part: Wordings = ("What does “{title}” say about {heading}? (part {number} of {parts})",)
    definition: Wordings = ("What does “{term}” mean in “{title}”?",)
    table: Wordings = ("According to “{title}”, what is the {column} of {row}?",)

    @model_validator(mode="after")
    def _check_slots(self) -> "QuestionWording":
        known = {
            "section": {"title", "heading"},
            "part": {"title", "heading", "number", "parts"},
            "definition": {"title", "heading", "term"},
            "table": {"title", "heading", "column", "row"},
        }
        for name, slots in known.items():
            used = frozenset[str]().union(*map(slots_of, getattr(self, name)))
            if unknown := sorted(used - slots):
                raise ValueError(
                    f"questions.{name} has no slot {{{unknown[0]}}}; it has "
                    + ", ".join(f"{{{slot}}}" for slot in sorted(slots))
                )
        return self


class Template(FrozenModel):
    """A question and its answer with slots, which are filled from `values`. Of more combinations
    than `examples`, as many are drawn by hash.
    """

    prompt: Text
    answer: Text
    examples: Annotated[int, Field(ge=1, le=10_000)] = 1_000


class Recipe(FrozenModel):
    """All that a file can say. `system` is the system message of every example; without `teacher`
    no model is involved.
    """

    system: Text | None = None
    questions: QuestionWording = QuestionWording()
    templates: Annotated[tuple[Template, ...], Field(max_length=1_000)] = ()
    values: Mapping[SlotName, Annotated[tuple[Value, ...], Field(min_length=1)]] = {}
    teacher: TeacherSettings | None = None

    @model_validator(mode="after")
    def _check_values(self) -> "Recipe":
        for number, template in enumerate(self.templates, start=1):
            for slot in sorted(slots_of(template.prompt) | slots_of(template.answer)):
                name, _, field = slot.partition(".")
                if name not in self.values:
                    raise ValueError(f"template {number} has {{{slot}}}; add {name} to values")
                for value in self.values[name]:
                    if field not in value if isinstance(value, dict) else field:
                        raise ValueError(_misfit(number, slot, name, value))
        return self

    @property
    def digest(self) -> str:
        """Digest of the content, without the teacher: its replies are in the examples."""
        return digest_of(self.model_dump_json(exclude={"teacher"}).encode())


def _misfit(number: int, slot: str, name: str, value: Value) -> str:
    if isinstance(value, dict):
        fields = ", ".join(f"{{{name}.{field}}}" for field in value)
        return f"template {number} has {{{slot}}}; a value of {name} offers {fields}"
    return f"template {number} has {{{slot}}}; a value of {name} is {value!r}, which has no fields"


def read_recipe(path: Path | None) -> Recipe:
    """Read a recipe; without a path, return the defaults. Raises Misconfigured."""
    if path is None:
        return Recipe()
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise Misconfigured(f"{path} is larger than 1 MiB; a recipe is a short file")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise Misconfigured(f"{path} is not YAML: {error}") from error
    try:
        return Recipe.model_validate(content or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Misconfigured(f"{path}: {place + ': ' if place else ''}{first['msg']}") from error
