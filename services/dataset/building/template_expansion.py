"""Examples of the templates of a recipe."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from services.dataset.building.candidate import Candidate
from services.dataset.building.recipe import Recipe, Template, Value
from services.dataset.building.slots import fill, slots_of
from shared.identity import hash_fraction, identity

_ENUMERATED = 4
"""Up to this multiple of the wanted number, all combinations are ranked by hash."""


def expand(recipe: Recipe) -> Iterator[Candidate]:
    """Yield the examples of all templates, in their order. The same recipe always has the same."""
    for template in recipe.templates:
        slots = slots_of(template.prompt) | slots_of(template.answer)
        names = sorted({slot.partition(".")[0] for slot in slots})
        choices = [recipe.values[name] for name in names]
        for number in _drawn(template, prod(map(len, choices))):
            values = dict(zip(names, _combination(choices, number), strict=True))
            yield Candidate(
                "template", _filled(template.prompt, values), _filled(template.answer, values)
            )


def _drawn(template: Template, total: int) -> Sequence[int]:
    """Return the numbers of the combinations to use, of `total` ones."""
    wanted = min(template.examples, total)
    if wanted == total:
        return range(total)
    if total <= _ENUMERATED * wanted:
        ranked = sorted(range(total), key=lambda number: _rank(template, number))
        return sorted(ranked[:wanted])
    drawn: dict[int, None] = {}
    attempt = 0
    while len(drawn) < wanted:
        drawn[int(identity(template.prompt, template.answer, attempt), 16) % total] = None
        attempt += 1
    return sorted(drawn)


def _rank(template: Template, number: int) -> float:
    return hash_fraction(template.prompt, template.answer, number)


def _combination(choices: Sequence[Sequence[Value]], number: int) -> list[Value]:
    values: list[Value] = []
    for choice in reversed(choices):
        number, place = divmod(number, len(choice))
        values.append(choice[place])
    return values[::-1]


def _filled(text: str, values: Mapping[str, Value]) -> str:
    def value_of(slot: str) -> str:
        name, _, field = slot.partition(".")
        value = values[name]
        return str(value[field] if isinstance(value, dict) else value)

    return fill(text, value_of)
