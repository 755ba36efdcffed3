"""An interrupted run continues as if it had not been interrupted, and damaged checkpoints are
skipped.
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
"""Eight examples are a step of four batches; twenty-four make three steps per epoch, nine in total.
"""

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

StopCheck = Callable[[], bool]


def never() -> bool:
    return False


def run(
    out: Path,
    folder: Path | None,
    should_stop: StopCheck = never,
    config: TrainingConfig = CONFIG,
    name: str = "r",
) -> Trained:
    """Train a freshly loaded model with freshly seeded generators."""
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
            should_stop=should_stop,
        )
        save_adapter(model, "tiny", out)
    return trained


def stop_after(steps: int) -> StopCheck:
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == steps

    return should_stop


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    out = tmp_path_factory.mktemp("whole")
    return run(out, None), out


@pytest.mark.parametrize("stops", [(1,), (3,), (8,), (2, 1, 3)])
def test_resumed_run_ends_with_identical_weights(
    tmp_path: Path, uninterrupted: tuple[Trained, Path], stops: tuple[int, ...]
) -> None:
    """Covers dropout, optimizer moments, preferences and the mean of the last epoch; stops between
    and within epochs, once and repeatedly.
    """
    whole, whole_out = uninterrupted
    assert whole.steps == 9
    completed = 0
    for steps in stops:
        with pytest.raises(TrainingInterrupted) as interrupted:
            run(tmp_path / "out", tmp_path / "run", stop_after(steps))
        completed += steps
        assert interrupted.value.step == completed
        torch.rand(7)  # another request changes the generators meanwhile
    resumed = run(tmp_path / "out", tmp_path / "run")
    for name, weight in weights(whole_out).items():
        assert torch.equal(weights(tmp_path / "out")[name], weight), name
    assert (resumed.steps, resumed.tokens, resumed.training_loss) == (
        whole.steps,
        whole.tokens,
        whole.training_loss,
    )


def test_dropout_affects_the_weights(tmp_path: Path, uninterrupted: tuple[Trained, Path]) -> None:
    """Without dropout the weights differ. Otherwise the test above would not notice an unrestored
    generator.
    """
    run(tmp_path, None, config=CONFIG.model_copy(update={"dropout": 0.0}))
    assert any(
        not torch.equal(weights(tmp_path)[name], weight)
        for name, weight in weights(uninterrupted[1]).items()
    )


def test_newest_two_are_kept_and_none_is_written_at_the_end(tmp_path: Path) -> None:
    run(tmp_path / "out", tmp_path / "run", config=CONFIG.model_copy(update={"save_steps": 3}))
    assert names(tmp_path / "run") == ["checkpoint-3", "checkpoint-6"]
    run(tmp_path / "out", tmp_path / "run2")
    assert names(tmp_path / "run2") == ["checkpoint-6", "checkpoint-8"]
    assert names(tmp_path / "run2" / "checkpoint-8") == [
        "course.json",
        "manifest.json",
        "state.safetensors",
    ]


def test_checkpoint_is_written_after_save_minutes(tmp_path: Path) -> None:
    """The clock advances 20 seconds per reading: at the start, after each step and after each save.
    100 seconds have passed after step 5 (20 to 120); the save is at 140, and only four more steps
    follow.
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


def test_slow_steps_are_saved_one_by_one(tmp_path: Path) -> None:
    """Sixty seconds per step: whatever ends the process after a step, that step is not lost."""
    ticks = iter(range(0, 10_000, 60))
    saved: list[list[str]] = []
    config = CONFIG.model_copy(update={"save_steps": 1000, "save_minutes": 60})
    torch.manual_seed(0)
    with trainable_adapter(tiny_model(), config, None) as model:
        train(
            model,
            MANY,
            config,
            "cpu",
            lambda step: saved.append(names(tmp_path)),
            checkpoints=Checkpoints(tmp_path, "r"),
            clock=lambda: float(next(ticks)),
        )
    assert saved == [
        [f"checkpoint-{step}" for step in range(max(1, steps - 1), steps + 1)] for steps in range(9)
    ]


def test_seconds_and_tokens_accumulate_across_resumes(tmp_path: Path) -> None:
    """Ten seconds per step: five steps before the stop and four after it are ninety seconds,
    independent of the time in between.
    """
    ticks = iter(range(0, 10_000, 10))
    steps: list[Stepped] = []
    config = CONFIG.model_copy(update={"save_steps": 1000})
    for should_stop in (stop_after(5), never):
        with trainable_adapter(tiny_model(), config, None) as model:
            try:
                trained = train(
                    model,
                    MANY,
                    config,
                    "cpu",
                    steps.append,
                    checkpoints=Checkpoints(tmp_path, "r"),
                    should_stop=should_stop,
                    clock=lambda: float(next(ticks)),
                )
            except TrainingInterrupted:
                next(ticks)
    assert [step.step for step in steps] == list(range(1, 10))
    assert trained.seconds == 90
    assert trained.tokens == 3 * sum(len(example.ids) for example in MANY)


@pytest.mark.parametrize("file", ["state.safetensors", "course.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut off", "altered", "gone"])
def test_damaged_checkpoint_is_skipped_for_the_previous_one(
    tmp_path: Path,
    uninterrupted: tuple[Trained, Path],
    file: str,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "out", tmp_path / "run", stop_after(5))
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
        assert Checkpoints(tmp_path / "run", "r").resume(optimizer_state_of(model)).steps == 4
    assert "checkpoint-5" in caplog.text
    run(tmp_path / "out", tmp_path / "run")
    assert all(
        torch.equal(weights(tmp_path / "out")[name], weight)
        for name, weight in weights(uninterrupted[1]).items()
    )


def optimizer_state_of(model: torch.nn.Module) -> OptimizerState:
    parameters = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    return OptimizerState(
        parameters,
        torch.optim.AdamW(parameters.values()),
        torch.amp.GradScaler("cpu", enabled=False),
    )


def test_partial_and_foreign_checkpoints_are_ignored(
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "out", tmp_path / "run", stop_after(5))
    shutil.move(tmp_path / "run" / "checkpoint-5", tmp_path / "run" / ".checkpoint-5.part")
    with trainable_adapter(tiny_model(), CONFIG, None) as model:
        optimizer_state = optimizer_state_of(model)
        assert Checkpoints(tmp_path / "run", "r").resume(optimizer_state).steps == 4
        before = {name: parameter.clone() for name, parameter in optimizer_state.parameters.items()}
        assert Checkpoints(tmp_path / "run", "another").resume(optimizer_state) == TrainingState()
        assert Checkpoints(tmp_path / "nowhere", "r").resume(optimizer_state) == TrainingState()
        assert all(
            torch.equal(parameter, before[name])
            for name, parameter in optimizer_state.parameters.items()
        )
    run(tmp_path / "out", tmp_path / "run", name="another")
    assert names(tmp_path / "run") == [".checkpoint-5.part", "checkpoint-6", "checkpoint-8"]


def test_gradient_scaler_state_is_restored(tmp_path: Path) -> None:
    """Its scale and growth tracker decide which later steps are skipped."""
    with trainable_adapter(tiny_model(), CONFIG, None) as model:
        optimizer_state = optimizer_state_of(model)
        for parameter in optimizer_state.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer_state.optimizer.step()
        saved, restored = (
            torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=100) for _ in range(2)
        )
        saved.load_state_dict({**saved.state_dict(), "scale": 4.0, "_growth_tracker": 7})
        Checkpoints(tmp_path, "r").save(
            replace(optimizer_state, scaler=saved), TrainingState(losses=(1.0,), norms=(None,))
        )
        state = Checkpoints(tmp_path, "r").resume(replace(optimizer_state, scaler=restored))
    assert state.norms == (None,)
    assert (restored.get_scale(), restored.state_dict()["_growth_tracker"]) == (4.0, 7)
