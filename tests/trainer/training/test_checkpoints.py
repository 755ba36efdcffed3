"""A run that was cut off goes on as if it had not been, and what is on disk is whole or passed
over.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.trainer.protocol import Stepped, Trained
from services.trainer.training.base_model import save_adapter, trainable_adapter
from services.trainer.training.checkpoints import Checkpoints, OptimizerState, TrainingState
from services.trainer.training.preferences import EncodedPair, JudgedAnswer
from services.trainer.training.recipe import TrainingInterrupted, train
from shared.config.training import TrainingConfig
from tests.trainer.tiny import EXAMPLES, encode_pair, tiny_model, weights

CONFIG = TrainingConfig(
    rank=4,
    alpha=8,
    batch_size=2,
    epochs=3,
    learning_rate=5e-3,
    dropout=0.2,
    warmup_ratio=0.2,
    save_steps=2,
)
"""Eight examples are a step of four batches; twenty-four make three steps an epoch, nine in all."""

MANY = [example for example in EXAMPLES for _ in range(3)]
PAIRS = [
    EncodedPair(encode_pair("one", "yes"), encode_pair("one", "no")),
    EncodedPair(encode_pair("two", "a b"), encode_pair("two", "b a")),
]
JUDGED = [
    JudgedAnswer(encode_pair("three", "good"), True),
    JudgedAnswer(encode_pair("four", "bad"), False),
    JudgedAnswer(encode_pair("five", "worse"), False),
]

Told = Callable[[], bool]


def never() -> bool:
    return False


def run(
    out: Path,
    folder: Path | None,
    stopping: Told = never,
    config: TrainingConfig = CONFIG,
    name: str = "r",
) -> Trained:
    """Train a model that has just been loaded, with generators in a state of their own."""
    torch.manual_seed(config.seed)
    with trainable_adapter(tiny_model(), config, None) as model:
        checkpoints = Checkpoints(folder, name) if folder else None
        trained = train(
            model,
            MANY,
            config,
            "cpu",
            lambda step: None,
            pairs=PAIRS,
            judged=JUDGED,
            checkpoints=checkpoints,
            should_stop=stopping,
        )
        save_adapter(model, "tiny", out)
    return trained


def stops_after(steps: int) -> Told:
    asked = 0

    def told() -> bool:
        nonlocal asked
        asked += 1
        return asked == steps

    return told


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    out = tmp_path_factory.mktemp("whole")
    return run(out, None), out


@pytest.mark.parametrize("stops", [(1,), (3,), (8,), (2, 1, 3)])
def test_a_run_that_was_stopped_ends_with_the_very_same_weights(
    tmp_path: Path, uninterrupted: tuple[Trained, Path], stops: tuple[int, ...]
) -> None:
    """Dropout, moments of the optimizer, preferences and the mean of the last epoch included;
    between epochs and within one, and again.
    """
    whole, whole_out = uninterrupted
    assert whole.steps == 9
    done = 0
    for steps in stops:
        with pytest.raises(TrainingInterrupted) as interrupted:
            run(tmp_path / "out", tmp_path / "run", stops_after(steps))
        done += steps
        assert interrupted.value.step == done
        torch.rand(7)  # what another request does to the generators meanwhile
    resumed = run(tmp_path / "out", tmp_path / "run")
    for name, weight in weights(whole_out).items():
        assert torch.equal(weights(tmp_path / "out")[name], weight), name
    assert (resumed.steps, resumed.tokens, resumed.training_loss) == (
        whole.steps,
        whole.tokens,
        whole.training_loss,
    )


def test_dropout_takes_part(tmp_path: Path, uninterrupted: tuple[Trained, Path]) -> None:
    """Without it, the weights are others: the test above would not see a generator that was not put
    back.
    """
    run(tmp_path, None, config=CONFIG.model_copy(update={"dropout": 0.0}))
    assert any(
        not torch.equal(weights(tmp_path)[name], weight)
        for name, weight in weights(uninterrupted[1]).items()
    )


def test_the_newest_two_are_kept_and_none_is_made_at_the_end(tmp_path: Path) -> None:
    run(tmp_path / "out", tmp_path / "run", config=CONFIG.model_copy(update={"save_steps": 3}))
    assert names(tmp_path / "run") == ["checkpoint-3", "checkpoint-6"]
    run(tmp_path / "out", tmp_path / "run2")
    assert names(tmp_path / "run2") == ["checkpoint-6", "checkpoint-8"]
    assert names(tmp_path / "run2" / "checkpoint-8") == [
        "course.json",
        "manifest.json",
        "state.safetensors",
    ]


def test_a_checkpoint_is_made_when_minutes_have_passed(tmp_path: Path) -> None:
    """A clock that moves 20 seconds whenever it is looked at, which is at the beginning, after each
    step and after each saving. 100 seconds have passed after step 5 (20 to 120); the saving is at
    140, and only four more steps follow.
    """
    seconds = iter(range(20, 10_000, 20))
    config = CONFIG.model_copy(update={"save_steps": 1000, "save_minutes": 100 / 60})
    torch.manual_seed(0)
    with trainable_adapter(tiny_model(), config, None) as model:
        checkpoints = Checkpoints(tmp_path, "r")
        train(
            model,
            MANY,
            config,
            "cpu",
            lambda step: None,
            checkpoints=checkpoints,
            clock=lambda: float(next(seconds)),
        )
    assert names(tmp_path) == ["checkpoint-5"]


def test_seconds_and_tokens_go_on_counting(tmp_path: Path) -> None:
    """Ten seconds a step: five steps before the stop and four after it are ninety seconds, whatever
    was between them.
    """
    ticks = iter(range(0, 10_000, 10))
    steps: list[Stepped] = []
    config = CONFIG.model_copy(update={"save_steps": 1000})
    for stopping in (stops_after(5), never):
        with trainable_adapter(tiny_model(), config, None) as model:
            try:
                trained = train(
                    model,
                    MANY,
                    config,
                    "cpu",
                    steps.append,
                    checkpoints=Checkpoints(tmp_path, "r"),
                    should_stop=stopping,
                    clock=lambda: float(next(ticks)),
                )
            except TrainingInterrupted:
                next(ticks)
    assert [step.step for step in steps] == list(range(1, 10))
    assert trained.seconds == 90
    assert trained.tokens == 3 * sum(len(example.ids) for example in MANY)


@pytest.mark.parametrize("file", ["state.safetensors", "course.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut off", "altered", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path,
    uninterrupted: tuple[Trained, Path],
    file: str,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "out", tmp_path / "run", stops_after(5))
    assert names(tmp_path / "run") == ["checkpoint-4", "checkpoint-5"]
    path = tmp_path / "run" / "checkpoint-5" / file
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(
            data[:-5] if damage == "cut off" else data[:40] + bytes([data[40] ^ 1]) + data[41:]
        )
    torch.manual_seed(0)
    with (
        trainable_adapter(tiny_model(), CONFIG, None) as model,
        caplog.at_level("WARNING", "ratchet.trainer"),
    ):
        assert Checkpoints(tmp_path / "run", "r").resume(learner_of(model)).steps == 4
    assert "checkpoint-5" in caplog.text
    run(tmp_path / "out", tmp_path / "run")
    assert all(
        torch.equal(weights(tmp_path / "out")[name], weight)
        for name, weight in weights(uninterrupted[1]).items()
    )


def learner_of(model: torch.nn.Module) -> OptimizerState:
    parameters = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    return OptimizerState(
        parameters,
        torch.optim.AdamW(parameters.values()),
        torch.amp.GradScaler("cpu", enabled=False),
    )


def test_what_was_being_written_is_no_checkpoint_and_another_run_s_is_not_taken(
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "out", tmp_path / "run", stops_after(5))
    shutil.move(tmp_path / "run" / "checkpoint-5", tmp_path / "run" / ".checkpoint-5.part")
    with trainable_adapter(tiny_model(), CONFIG, None) as model:
        learner = learner_of(model)
        assert Checkpoints(tmp_path / "run", "r").resume(learner).steps == 4
        before = {name: parameter.clone() for name, parameter in learner.parameters.items()}
        assert Checkpoints(tmp_path / "run", "another").resume(learner) == TrainingState()
        assert Checkpoints(tmp_path / "nowhere", "r").resume(learner) == TrainingState()
        assert all(
            torch.equal(parameter, before[name]) for name, parameter in learner.parameters.items()
        )
    run(tmp_path / "out", tmp_path / "run", name="another")
    assert names(tmp_path / "run") == [".checkpoint-5.part", "checkpoint-6", "checkpoint-8"]


def test_the_state_of_the_gradient_scaler_is_put_back(tmp_path: Path) -> None:
    """Its scale and how many steps it has held are what decides which later steps are left out."""
    with trainable_adapter(tiny_model(), CONFIG, None) as model:
        learner = learner_of(model)
        for parameter in learner.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        learner.optimizer.step()
        one, other = (
            torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=100) for _ in range(2)
        )
        one.load_state_dict({**one.state_dict(), "scale": 4.0, "_growth_tracker": 7})
        Checkpoints(tmp_path, "r").save(
            replace(learner, scaler=one), TrainingState(losses=(1.0,), norms=(None,))
        )
        course = Checkpoints(tmp_path, "r").resume(replace(learner, scaler=other))
    assert course.norms == (None,)
    assert (other.get_scale(), other.state_dict()["_growth_tracker"]) == (4.0, 7)
