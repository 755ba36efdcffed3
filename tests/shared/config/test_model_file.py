"""Model files: valid ones are read, errors name file, line and field."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.model_file import ModelFile
from shared.config.models import Models, built_in_rehearsal, load_model, load_models
from shared.config.renamed_keys import RENAMED_KEYS
from shared.errors import ModelFileError, UnknownModel

GOOD = """model: support
base: {training: folder, serving: folder/model.gguf}
lanes:
  adaptive:
    training:
      rank: 4
"""


def write(folder: Path, text: str, name: str = "support.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_models_of_this_repository_are_valid() -> None:
    models = load_models(Path("models"))
    support = models.get("support")
    assert support.curation.batch_size == 50
    assert len(models.golden("support")) >= support.gate.minimum_examples
    assert models.regression_set("support")
    assert models.regression_prompts("support")


def test_evaluation_prompts_are_never_rehearsed() -> None:
    models = load_models(Path("models"))
    evaluated = {prompt.messages for prompt in models.regression_set("support")} | {
        prompt.messages for prompt in models.regression_prompts("support")
    }
    rehearsed = {prompt.messages for prompt in models.rehearsal("support", "adaptive")}
    assert rehearsed
    assert not rehearsed & evaluated


def test_omitted_keys_have_defaults(tmp_path: Path) -> None:
    model = load_model(write(tmp_path, GOOD))
    assert model.lanes["adaptive"].training.rank == 4
    assert model.lanes["adaptive"].training.alpha == 16
    assert model.key_of(0) == "support"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD + "colour: green\n",
            "support.yaml:7: colour: no such key; expected one of model, base, ",
        ),
        (
            GOOD + "gate: {goldn: golden.jsonl}\n",
            "support.yaml:7: gate.goldn: no such key; did you mean golden?",
        ),
        (
            GOOD.replace("rank", "rnak"),
            "support.yaml:6: lanes.adaptive.training.rnak: no such key; did you mean rank?",
        ),
        (
            GOOD.replace("rank: 4", "rank: 100"),
            "support.yaml:6: lanes.adaptive.training.rank: rank 100 is outside 4 to 64, the "
            "range of the lane adaptive",
        ),
        (
            GOOD.replace("adaptive", "master"),
            "support.yaml:6: lanes.master.training.rank: rank 4 is outside 8 to 64, the "
            "range of the lane master",
        ),
        (
            GOOD.replace("4", "8") + "      lane: master\n",
            "support.yaml:3: lanes: training of lane adaptive has lane: master; remove the key",
        ),
        (
            GOOD + "    window: {from: '02:00', to: '6:00', zone: UTC}\n",
            "support.yaml:7: lanes.adaptive.window.to: String should match",
        ),
        (
            GOOD + "    window: {from: '02:00', to: '02:00', zone: UTC}\n",
            "support.yaml:7: lanes.adaptive.window: from and to are equal",
        ),
        (
            GOOD + "    window:\n      from: 22:00\n      to: '02:00'\n      zone: UTC\n",
            "support.yaml:8: lanes.adaptive.window.from: Input should be a valid string: "
            "write the time in quotes",
        ),
        (
            GOOD
            + "    window:\n      from: '22:00'\n      to: '02:00'\n      zone: Europe/Atlantis\n",
            "support.yaml:10: lanes.adaptive.window.zone: expected a name of the "
            "time zone database, such as Europe/Berlin, found 'Europe/Atlantis'",
        ),
        (
            GOOD.replace("model: support", "model: other"),
            "support.yaml:1: model: 'other' must match the name of its file",
        ),
        (GOOD.replace("base:", "bass:"), "base: Field required"),
        ("model: [", "support.yaml:1: not YAML"),
    ],
)
def test_an_invalid_file_is_reported_with_line_and_field(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_model(write(tmp_path, text))
    assert expected in str(caught.value)


def test_an_invalid_line_of_a_golden_set_is_named(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "gate: {golden: golden.jsonl}\n")
    write(
        tmp_path,
        '{"messages": [{"role": "user", "content": "a"}], "answer": "b"}\n\n{"answer": "c"}\n',
        "golden.jsonl",
    )
    with pytest.raises(ModelFileError, match=r"golden.jsonl:3: messages: Field required"):
        load_models(tmp_path).golden("support")


OLD_KEYS = """curation: {newcomer_hours: 24}
gate:
  canaries: prompts.jsonl
  retention: set.jsonl
  retention_margin: 0.4
  tripwire: {versions: 5}
"""


def test_old_keys_are_read_under_their_new_names(tmp_path: Path) -> None:
    model = load_model(write(tmp_path, GOOD + OLD_KEYS))
    assert model.curation.new_user_hours == 24
    assert (model.gate.regression_prompts, model.gate.regression_set) == (
        "prompts.jsonl",
        "set.jsonl",
    )
    assert model.gate.regression_margin == 0.4
    assert model.gate.reward_hacking.versions == 5


def test_old_and_new_keys_have_the_same_digest(tmp_path: Path) -> None:
    new_keys = OLD_KEYS
    for names in RENAMED_KEYS.values():
        for new, old in names.items():
            new_keys = new_keys.replace(f"{old}:", f"{new}:")
    assert "canaries" not in new_keys
    first = load_model(write(tmp_path, GOOD + OLD_KEYS)).digest
    assert load_model(write(tmp_path, GOOD + new_keys)).digest == first


def test_the_digest_of_a_stored_event_stays_valid(tmp_path: Path) -> None:
    """Pins the digest of models/support.yaml from before its keys were renamed."""
    text = Path("models/support.yaml").read_text(encoding="utf-8")
    text = text.replace("regression_set: support/regression_set", "retention: support/retention")
    text = text.replace(
        "regression_prompts: support/regression_prompts", "canaries: support/canaries"
    )
    assert load_model(write(tmp_path, text)).digest == (
        "sha256:c69c8825e743644c635518ba1eb3bd746bbcdeb6c18a228a250452a45e985f9d"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "gate:\n  retention_margin: -1\n",
            "support.yaml:8: gate.retention_margin: Input should be",
        ),
        ("curation:\n  newcomer_hours: x\n", "support.yaml:8: curation.newcomer_hours: Input"),
        (
            "gate:\n  canaries: a\n  regression_prompts: b\n",
            "support.yaml:7: gate: regression_prompts and canaries are two names of the same key; "
            "remove canaries",
        ),
    ],
)
def test_errors_of_old_keys_have_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_model(write(tmp_path, GOOD + text))
    assert expected in str(caught.value)


def test_a_folder_without_models_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="RATCHET_MODELS"):
        load_models(tmp_path)


def test_an_undeclared_model_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(UnknownModel, match=r"models/sales\.yaml"):
        load_models(tmp_path).get("sales")


def test_the_digest_depends_on_content_not_on_layout(tmp_path: Path) -> None:
    first = load_model(write(tmp_path, GOOD)).digest
    assert load_model(write(tmp_path, "# a remark\n" + GOOD)).digest == first
    assert load_model(write(tmp_path, GOOD.replace("rank: 4", "rank: 5"))).digest != first


@given(st.text(), st.integers(1, 64))
def test_a_user_always_has_the_same_shard(user: str, shards: int) -> None:
    base = {"training": "a", "serving": "b"}
    model = ModelFile.model_validate({"model": "m", "base": base, "shards": shards})
    shard = model.shard_of(user, None, "x")
    assert 0 <= shard < shards
    assert shard == model.shard_of(user, None, "x")


def test_deciding_measures_need_answers(tmp_path: Path) -> None:
    deciding = GOOD + "gate: {answered: 0, deciding: {exact_match: {margin: 0.05}}}\n"
    with pytest.raises(
        ModelFileError,
        match=r"support\.yaml:7: gate: .*exact_match needs answers; raise `answered`",
    ):
        load_model(write(tmp_path, deciding))
    gate = load_model(write(tmp_path, deciding.replace("answered: 0", "answered: 30"))).gate
    assert gate.deciding["exact_match"].margin == 0.05
    assert not gate.deciding["exact_match"].promotes


def test_promoting_measures_need_minimum_examples_answers(tmp_path: Path) -> None:
    promoting = (
        GOOD + "gate: {answered: 11, minimum_examples: 12, deciding: {exact_match: {margin: 0.05, "
        "promotes: true}}}\n"
    )
    with pytest.raises(ModelFileError, match=r"exact_match cannot promote; raise `answered` to"):
        load_model(write(tmp_path, promoting))
    assert (
        load_model(write(tmp_path, promoting.replace("answered: 11", "answered: 12")))
        .gate.deciding["exact_match"]
        .promotes
    )


QUESTION = '{"messages": [{"role": "user", "content": "%s"}]}'
GATE = (
    "gate: {golden: golden.jsonl, regression_set: set.jsonl, regression_prompts: prompts.jsonl}\n"
)


def with_evaluation_sets(folder: Path, lanes: str = "") -> Models:
    """Three built-in prompts are evaluated: one has a system message, one another spacing."""
    (folder / "golden.jsonl").write_text(
        '{"messages": [{"role": "system", "content": "Be brief."}, '
        '{"role": "user", "content": "What is 3 plus 4?"}], "answer": "7"}\n'
    )
    (folder / "set.jsonl").write_text(QUESTION % "What  is the largest Planet? " + "\n")
    (folder / "prompts.jsonl").write_text(QUESTION % "Where do penguins live?" + "\n")
    write(folder, GOOD.split("lanes")[0] + GATE + lanes)
    return load_models(folder)


def test_built_in_rehearsal_leaves_out_evaluated_prompts(tmp_path: Path) -> None:
    models = with_evaluation_sets(tmp_path)
    rehearsed = {prompt.messages[0].content for prompt in models.rehearsal("support", "adaptive")}
    built_in = {prompt.messages[0].content for prompt in built_in_rehearsal()}
    evaluated = {
        "What is 3 plus 4?",
        "What is the largest planet?",
        "Where do penguins live?",
    }
    assert len(built_in) == 24
    assert rehearsed == built_in - evaluated
    assert len(models.evaluated_rehearsal("support", "adaptive")) == 3
    assert models.rehearsal("support", "adaptive", built_in=False) == []


def test_rehearsal_is_turned_off_by_none(tmp_path: Path) -> None:
    models = with_evaluation_sets(tmp_path, "lanes: {adaptive: {rehearsal: none}}\n")
    assert models.rehearsal("support", "adaptive") == []
    assert models.evaluated_rehearsal("support", "adaptive") == []


def test_a_rehearsal_file_is_used_whole(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(
        QUESTION % "Where do penguins live?" + "\n" + QUESTION % "Who are you?" + "\n"
    )
    models = with_evaluation_sets(tmp_path, "lanes: {adaptive: {rehearsal: own.jsonl}}\n")
    assert len(models.rehearsal("support", "adaptive")) == 2
    (shared,) = models.evaluated_rehearsal("support", "adaptive")
    assert shared.messages[0].content == "Where do penguins live?"


def test_digests_of_earlier_versions_stay_valid(tmp_path: Path) -> None:
    """Computed with the version before defaults depended on base and device."""
    path = write(tmp_path, GOOD.split("lanes")[0])
    assert load_model(path).digest == (
        "sha256:b222c5e3ea2ff631f2bf77fa52b0275dd0d0c7565e6b6583939f4c81ef664e64"
    )
    path = write(tmp_path, GOOD)
    assert load_model(path).digest == (
        "sha256:ebaacbcbcc37cbc0509c6410be9307acb4985f5d0caf9e10e6981b2b6d66a239"
    )
