"""Answer formats that a policy can require, and the errors for invalid ones."""

from pathlib import Path
from time import process_time
from typing import Any

import pytest

from shared.config.answer_format import format_check
from shared.config.models import load_model
from shared.config.reward_policy import RewardPolicy
from shared.errors import ModelFileError

QUEUES = {
    "type": "object",
    "required": ["queue"],
    "properties": {
        "queue": {"enum": ["harbor", "ledger"]},
        "order": {"type": ["string", "null"], "pattern": "^[0-9]{5}$"},
    },
}


@pytest.mark.parametrize(
    ("demands", "answer", "fault"),
    [
        ({}, "anything", None),
        ({"format": "json"}, '{"a": 1}', None),
        ({"format": "json"}, ' {"a": 1}\n', None),
        ({"format": "json"}, "[1]", "is not a JSON object"),
        ({"format": "json"}, '{"a": NaN}', "is not JSON"),
        ({"format": "json"}, '{"a": 1', "is not JSON"),
        ({"format": "json"}, 'Sure! {"a": 1}', "is not JSON"),
        ({"format": "json"}, "[" * 100_000, "is not JSON"),
        ({"json_schema": QUEUES}, '{"queue": "harbor", "order": "12345"}', None),
        (
            {"json_schema": QUEUES},
            '{"queue": "attic"}',
            "breaks properties.queue.enum of the policy's json_schema",
        ),
        (
            {"json_schema": QUEUES},
            '{"queue": "harbor", "order": "1"}',
            "breaks properties.order.pattern of the policy's json_schema",
        ),
        ({"json_schema": QUEUES}, "harbor", "is not JSON"),
        ({"json_schema": {"type": "array"}}, "[1]", None),
        ({"pattern": "^(yes|no)$"}, "yes", None),
        ({"pattern": "^(yes|no)$"}, "yes, but", "does not match the policy's pattern"),
        ({"pattern": "yes", "format": "json"}, "yes", "is not JSON"),
    ],
)
def test_format_errors_of_answers(demands: dict[str, Any], answer: str, fault: str | None) -> None:
    assert format_check(RewardPolicy.model_validate(demands))(answer) == fault


@pytest.mark.parametrize(
    "demands", [{"pattern": "^(a+)+$"}, {"json_schema": {"pattern": "^(a+)+$"}}]
)
def test_a_pathological_pattern_takes_linear_time(
    demands: dict[str, Any],
) -> None:
    """A backtracking engine needs 2^n steps for n letters: with 100,000 it never ends."""
    check = format_check(RewardPolicy.model_validate(demands))
    started = process_time()
    assert check('"' + "a" * 100_000 + '!"') is not None
    assert process_time() - started < 5


def policy_file(folder: Path, reward: str, rest: str = "") -> Path:
    path = folder / "support.yaml"
    path.write_text(
        f"model: support\nbase: {{training: b, serving: b.gguf}}\nreward:\n{reward}{rest}",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (
            "  validation: -1\n",
            "support.yaml:4: reward.validation: Input should be greater than or equal to 0",
        ),
        ("  version: 0\n", "support.yaml:4: reward.version:"),
        (
            "  name: mine\n  actions:\n    thumbs_up: 2\n",
            "support.yaml:6: reward.actions.thumbs_up: Input should be less than or equal to 1",
        ),
        (
            "  actions: {\n    shrug: 0}\n",
            "support.yaml:5: reward.actions.shrug: no such key; expected one of ",
        ),
        ("  format: xml\n", "support.yaml:4: reward.format: Input should be 'json'"),
        (
            "  name: a\n  pattern: '(a'\n",
            "support.yaml:5: reward.pattern: Value error, not a regular expression with "
            "linear running time",
        ),
        (
            "  pattern: '(?=a)b'\n",
            "support.yaml:4: reward.pattern: Value error, not a regular expression",
        ),
        (
            "  json_schema:\n    properties:\n      queue:\n        type: strng\n",
            'support.yaml:7: reward.json_schema.properties.queue.type: "strng" is not valid',
        ),
        (
            "  json_schema:\n    pattern: '(?<!a)b'\n",
            'support.yaml:5: reward.json_schema.pattern: "(?<!a)b" is not a "regex"',
        ),
        (
            "  json_schema:\n    $ref: '#/nowhere'\n",
            "support.yaml:4: reward.json_schema: Pointer '/nowhere' does not exist",
        ),
        ("  json_schema:\n    $ref: http://127.0.0.1:1/schema\n", "Retrieval is disabled"),
        (
            "  name: a\nredaction:\n  kinds: [email, faces]\n",
            "support.yaml:6: redaction.kinds.1: Input should be 'email', 'phone'",
        ),
        (
            "  name: a\nredaction:\n  regions:\n    - GB\n    - UK\n",
            "support.yaml:8: redaction.regions.1: Value error, expected a two-letter country code",
        ),
    ],
)
def test_an_invalid_policy_is_reported_with_line_and_field(
    tmp_path: Path, reward: str, expected: str
) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_model(policy_file(tmp_path, reward))
    assert expected in str(caught.value)


def test_an_older_policy_keeps_its_meaning(
    tmp_path: Path,
) -> None:
    policy = load_model(
        policy_file(
            tmp_path, "  name: old\n  version: 3\n  validation: 1.0\n  action: 2.0\n  rules: 0.5\n"
        )
    ).reward
    assert (policy.correction_weight, policy.actions.regenerated, policy.format) == (
        2.0,
        -0.5,
        None,
    )


def test_the_summary_of_a_policy(tmp_path: Path) -> None:
    model = load_model(
        policy_file(
            tmp_path,
            "  name: mine\n  version: 2\n  format: json\n",
            "redaction: {kinds: [email]}\n",
        )
    )
    assert (
        model.reward.summary
        == "reward policy mine v2 (validation 1, action 1, correction 1, rules 0.5; format: JSON)"
    )
    assert model.redaction.summary == "redacts email"
