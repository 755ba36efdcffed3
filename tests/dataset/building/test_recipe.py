"""Recipes: their slots and values, and the examples of their templates."""

from pathlib import Path

import pytest

from services.dataset.building.recipe import Recipe, read_recipe
from services.dataset.building.slots import fill, slots_of
from services.dataset.building.template_expansion import expand
from shared.errors import Misconfigured

RECIPE = """\
system: You answer for Larkspur.
templates:
  - prompt: How far does the {gateway.name} reach from {place}?
    answer: '{gateway.range} from {place}, {{always}}.'
values:
  gateway: [{name: Heron G1, range: 2 km}, {name: Heron G2, range: 7 km}]
  place: [a roof, a mast, 10]
"""
DEFAULT_DIGEST = "sha256:806d7c2f676c2610f78d658045b967e6c39267f40b43efe75f66dabba4962430"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_fields_of_a_value_stay_together(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, RECIPE))
    assert recipe.system == "You answer for Larkspur."
    examples = {each.question: each.answer for each in expand(recipe)}
    assert len(examples) == 6
    assert examples["How far does the Heron G2 reach from 10?"] == "7 km from 10, {always}."
    assert not any(
        ("G1" in question) == ("7 km" in answer) for question, answer in examples.items()
    )


@pytest.mark.parametrize("size", [7, 40])
def test_many_combinations_are_drawn_by_hash(size: int) -> None:
    values = tuple(str(number) for number in range(size))
    recipe = Recipe.model_validate(
        {
            "templates": [{"prompt": "{a} {b}?", "answer": "{a}", "examples": 20}],
            "values": {"a": values, "b": values},
        }
    )
    drawn = [each.question for each in expand(recipe)]
    assert drawn == [each.question for each in expand(recipe)]
    assert len(set(drawn)) == 20
    assert len({question.split()[0] for question in drawn}) > size // 4


def test_values_are_not_searched_for_slots() -> None:
    assert fill("{a} {{b}}", {"a": "{b}"}.__getitem__) == "{b} {b}"
    assert slots_of("{a} {{b}} {c.d} {1}") == {"a", "c.d"}


def test_without_a_file_the_defaults_hold() -> None:
    assert list(expand(read_recipe(None))) == []
    assert "{heading}" in read_recipe(None).questions.section[0]


def test_one_wording_alone_keeps_the_digest_of_a_recipe(tmp_path: Path) -> None:
    # Computed by a version in which a kind had one wording: datasets keep their IDs.
    assert read_recipe(None).digest == DEFAULT_DIGEST
    as_text = read_recipe(written(tmp_path, "questions: {table: '{row}?'}"))
    assert as_text == read_recipe(written(tmp_path, "questions: {table: ['{row}?']}"))
    several = read_recipe(written(tmp_path, "questions: {table: ['{row}?', '{column}?']}"))
    assert several.digest != as_text.digest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("templates: [{prompt: '{a}', answer: b}]", "template 1 has {a}; add a to values"),
        (
            "templates: [{prompt: '{a.b}', answer: b}]\nvalues: {a: [1]}",
            "a value of a is 1, which has no fields",
        ),
        (
            "templates: [{prompt: '{a}', answer: b}]\nvalues: {a: [{c: 1}]}",
            "a value of a offers {a.c}",
        ),
        (
            "templates: [{prompt: '{a.b}', answer: b}]\nvalues: {a: [{b: 1}, {c: 1}]}",
            "a value of a offers {a.c}",
        ),
        ("questions: {section: '{term}?'}", "section has no slot {term}; it has {heading}, {title"),
        ("questions: {table: ['{row}?', '{cell}']}", "questions.table has no slot {cell}"),
        (f"questions: {{table: [{'x,' * 13}]}}", "questions.table: Tuple should have at most 12"),
        ("question: {}", "question: Extra inputs are not permitted"),
        ("templates: [", "is not YAML"),
        ("[1]", "recipe.yaml: Input should be"),
        ("values: {a: []}", "values.a: Tuple should have at least 1 item"),
    ],
)
def test_wrong_recipes_name_the_place(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        read_recipe(written(tmp_path, text))
    assert reason in str(raised.value)


def test_a_missing_recipe_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.yaml")
