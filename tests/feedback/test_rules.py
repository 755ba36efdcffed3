"""Rules on the answer itself."""

import json

import pytest

from services.feedback.repetition import is_repetitive
from services.feedback.rules import broken_rules, is_cut_off
from shared.config.answer_format import format_check
from shared.config.reward_policy import RewardPolicy
from tests.feedback.feedback_events import make_feedback

ANY = format_check(RewardPolicy())
JSON = format_check(RewardPolicy(format="json"))


def test_a_valid_answer_breaks_no_rule() -> None:
    assert broken_rules(make_feedback(output="a good answer"), ANY) == ()
    assert broken_rules(make_feedback(output='{"a": 1}'), JSON) == ()


def test_broken_rules_by_answer() -> None:
    assert broken_rules(make_feedback(output=" \n"), JSON) == ("empty",)
    assert broken_rules(make_feedback(output="a good answer"), JSON) == ("format",)
    assert broken_rules(
        make_feedback(output='{"a": "b', tags={"finish_reason": "length"}), JSON
    ) == (
        "cut_off",
        "format",
    )
    assert broken_rules(make_feedback(output="I am sorry for that. " * 10), ANY) == ("repetitive",)


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nx = 1",
        "Here it is: ```python\nx = 1",
        "1. First:\n    ```sh\n    ls",
        "> ```\n> x",
        "~~~\nx = 1",
        "````markdown\n```python\nx = 1\n```",
        "```a\nx\n```\nand\n```b\ny",
    ],
)
def test_open_code_block_is_cut_off(answer: str) -> None:
    assert is_cut_off(answer, "stop")


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nx = 1\n```",
        "Open a block with ``` and close it as well.",
        "A block ends with ```",
        "Three backticks (```) open a block.",
        "Use ```x = 1``` in a line, and ``` once more.",
        "Here: ```python\nx = 1\n```",
        "Here: ```\nx = 1\n```.",
        "```\nx = 1```",
        "````markdown\n```python\nx = 1\n```\n````",
        "- item\n    ```\n    x\n    ```",
        "~~~\n```\n~~~",
    ],
)
def test_inline_fence_and_closed_block_are_whole(answer: str) -> None:
    assert not is_cut_off(answer, "stop")


def test_length_limit_is_cut_off() -> None:
    assert is_cut_off("so", "length")


NAMES = ["ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "lea"]
RECORDS = [
    {"id": at, "name": name, "type": "user", "active": True} for at, name in enumerate(NAMES)
]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "Here they are:\n```json\n" + json.dumps(RECORDS, indent=1) + "\n```",
        "\n".join(
            f"INSERT INTO users (id, name, active) VALUES ({at}, '{name}', TRUE);"
            for at, name in enumerate(NAMES)
        ),
        "INSERT INTO users VALUES "
        + ", ".join(f"({at}, '{name}', 1)" for at, name in enumerate(NAMES)),
        "<users>\n"
        + "".join(
            f"  <user>\n    <name>{name}</name>\n    <active>true</active>\n  </user>\n"
            for name in NAMES
        )
        + "</users>",
        "<l>" + "".join(f'<user name="{name}" active="true"/>' for name in NAMES) + "</l>",
        "[[1, 0, 0, 0, 0],\n [0, 1, 0, 0, 0],\n [0, 0, 1, 0, 0],\n [0, 0, 0, 1, 0],\n"
        " [0, 0, 0, 0, 1]]",
        "0 0 0 0 0 0 0 0\n" * 8,
        str([[0] * 10] * 10),
        "\n".join(f"| {name} | user | active | yes |" for name in NAMES),
        "\n".join(f"- name: {name}\n  type: user\n  active: true" for name in NAMES),
        "name,type,active,admin,level\n" + "\n".join(f"{name},user,true,false,1" for name in NAMES),
        "```c\n" + "".join(f'  printf("%s\\n", users[{at}].name);\n' for at in range(12)) + "```",
        " ".join(str(number) for number in range(100)),
        "yes yes yes yes",
        "".join(f"{number}月の会議は第{number}会議室で行います。" for number in range(1, 13)),
    ],
    ids=range(17),
)
def test_data_and_code_are_not_repetitive(answer: str) -> None:
    assert not is_repetitive(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I am sorry for that. " * 10,
        "I am sorry for that.\n" * 10,
        "Sure! Here is what you need.\n" + "I am sorry for that. " * 10,
        "对不起，我不明白。" * 8,
        "申し訳ありません。" * 8,
        '{"answer": "' + "I am sorry for that. " * 10 + '"}',
        json.dumps([RECORDS[0]] * 12),
        "```sql\n" + "INSERT INTO users VALUES (1, 'ada');\n" * 12 + "```",
        "<user><name>ada</name></user>" * 12,
        "and so on, and so forth; " * 30,
    ],
    ids=range(10),
)
def test_loops_are_repetitive_in_every_format(answer: str) -> None:
    assert is_repetitive(answer)
