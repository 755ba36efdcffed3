"""The recipe gives the same results on a GPU as on a CPU. Tests that need no GPU also run on the
CPU, so that they are known to work.
"""

from pathlib import Path

import pytest
import structlog
import torch
from transformers import LlamaConfig

from benchmarks.trainer.random_base import random_examples, save_random
from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.tokenization import EncodedExample
from services.trainer.data.training_set import Sample
from services.trainer.environment import collect_facts
from services.trainer.machine.bases import LocalBase
from services.trainer.machine.checks import machine_checks
from services.trainer.machine.device import best_precision, training_memory
from services.trainer.machine.memory import BatchTokens, estimate_needs
from services.trainer.settings import TrainerSettings
from services.trainer.training.base_model import (
    load_base,
    load_quantised,
    save_adapter,
    trainable_adapter,
)
from services.trainer.training.base_shape import read_shape
from services.trainer.training.checkpoints import Checkpoints
from services.trainer.training.likelihood import collate, log_likelihoods
from services.trainer.training.recipe import TrainingInterrupted, train
from services.trainer.worker.client import TrainingProcess, ignore_progress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from services.trainer.worker.resource_exhaustion import is_out_of_memory
from shared.config.training import TrainingConfig
from shared.events import Message
from tests.support.tickets import DIGEST
from tests.trainer.tiny import EXAMPLES, encode_pair, save_tiny, tiny_model, weights
from tests.trainer.training.test_likelihood import trainable_except_head

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no GPU on this machine: `make test-gpu` needs one"
    ),
]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
SHARED_PREFIX = [
    encode_pair(f"system:be brief {prompt}", answer)
    for prompt, answer in (("one", "1"), ("two", "22"), ("three", "3"), ("seven", "111"))
]
CONFIG = TrainingConfig(rank=4, alpha=8, batch_size=8, epochs=20, learning_rate=5e-3)

bitsandbytes_warns = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)
"""bitsandbytes warns about its own code."""


def small_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("examples", [EXAMPLES, SHARED_PREFIX], ids=["different", "shared prefix"])
def test_likelihoods_and_gradients_match_the_cpu(
    device: str, examples: list[EncodedExample]
) -> None:
    results = []
    for where in ("cpu", device):
        model = trainable_except_head(tiny_model().to(where))
        values = log_likelihoods(model, collate(examples, where))
        (-values.mean()).backward()  # type: ignore[no-untyped-call]  # torch has no types for backward
        gradients = [
            parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None
        ]
        results.append((values.detach().cpu(), gradients))
    (cpu_values, cpu_gradients), (device_values, device_gradients) = results
    torch.testing.assert_close(device_values, cpu_values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(device_gradients, cpu_gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("examples", [EXAMPLES, SHARED_PREFIX], ids=["different", "shared prefix"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_results_are_close_to_fp32(
    device: str, examples: list[EncodedExample], dtype: torch.dtype
) -> None:
    """bf16 has 8 bits of precision."""
    results = []
    for where, precision in (("cpu", torch.float32), (device, dtype)):
        model = trainable_except_head(tiny_model().to(precision).to(where))
        values = log_likelihoods(model, collate(examples, where))
        (-values.mean()).backward()  # type: ignore[no-untyped-call]  # torch has no types for backward
        gradients = [
            parameter.grad.float().cpu().flatten()
            for parameter in model.parameters()
            if parameter.grad is not None
        ]
        results.append((values.detach().float().cpu(), torch.cat(gradients)))
    (expected, expected_gradients), (values_16_bit, gradients_16_bit) = results
    torch.testing.assert_close(values_16_bit, expected, rtol=0.05, atol=0.05)
    assert float((gradients_16_bit - expected_gradients).norm()) < 0.1 * float(
        expected_gradients.norm()
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_works_in_every_precision(
    device: str, precision: str, checkpointing: bool, tmp_path: Path
) -> None:
    if device == "cpu" and precision == "fp16":
        pytest.skip("fp16 is for GPUs without bf16")
    save_tiny(tmp_path)
    base = load_base(str(tmp_path), precision)
    config = CONFIG.model_copy(update={"gradient_checkpointing": checkpointing})
    losses: list[float] = []
    torch.manual_seed(0)
    with trainable_adapter(base.train_model.to(device), config, None) as model:
        train(model, SHARED_PREFIX, config, device, lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("device", DEVICES)
@bitsandbytes_warns
def test_qlora_trains_and_leaves_the_base_unchanged(device: str, tmp_path: Path) -> None:
    save_random(small_config(), tmp_path, "cpu")
    model = load_quantised(str(tmp_path), torch.bfloat16, device)
    frozen = {name: weight.clone() for name, weight in model.state_dict().items()}
    losses: list[float] = []
    config = CONFIG.model_copy(
        update={"quantisation": "nf4", "gradient_checkpointing": True, "batch_size": 4}
    )
    torch.manual_seed(0)
    with trainable_adapter(model, config, None) as wrapped:
        train(
            wrapped, random_examples(4, 64), config, device, lambda step: losses.append(step.loss)
        )
    assert losses[-1] < losses[0] - 0.05
    assert all(torch.equal(weight, frozen[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("device", DEVICES)
def test_resumed_run_equals_uninterrupted_run(device: str, tmp_path: Path) -> None:
    """Dropout uses the device's own generator. A GPU does not always add in the same order, so
    results are only close there.
    """
    config = CONFIG.model_copy(update={"dropout": 0.2, "epochs": 6})

    def run(out: str, checkpoints: Checkpoints | None, stops: bool) -> None:
        torch.manual_seed(0)
        with trainable_adapter(tiny_model().to(device), config, None) as model:
            train(
                model,
                EXAMPLES,
                config,
                device,
                lambda step: None,
                checkpoints=checkpoints,
                should_stop=lambda: stops,
            )
            save_adapter(model, "tiny", tmp_path / out)

    run("whole", None, False)
    for _ in range(2):
        with pytest.raises(TrainingInterrupted):
            run("cut", Checkpoints(tmp_path, "r"), True)
        torch.rand(7, device=device)  # another request changes the generator meanwhile
    run("cut", Checkpoints(tmp_path, "r"), False)
    relative, absolute = (0.0, 0.0) if device == "cpu" else (1e-3, 1e-5)
    for name, weight in weights(tmp_path / "whole").items():
        torch.testing.assert_close(
            weights(tmp_path / "cut")[name], weight, rtol=relative, atol=absolute
        )


@pytest.mark.parametrize("device", DEVICES)
async def test_training_process_trains_and_evaluates(device: str, tmp_path: Path) -> None:
    """The process uses the GPU if there is one; then both cases are the same."""
    save_tiny(tmp_path / "tiny")
    process = TrainingProcess(0, structlog.stdlib.get_logger())
    session = ModelSession(process, LocalBase(tmp_path / "tiny", "tiny", DIGEST), "auto")
    samples = [
        Sample(messages=(Message(role="user", content=f"ticket {number}"),), answer="queue 7")
        for number in range(16)
    ]
    try:
        await session.estimate_memory(samples, CONFIG)
        await session.train(
            ObjectiveData(samples), CONFIG, None, tmp_path / "adapter", ignore_progress
        )
        candidate = EvaluatedModel("candidate", tmp_path / "adapter")
        before = await session.score(EvaluatedModel("base", None), samples, 256, ignore_progress)
        after = await session.score(candidate, samples, 256, ignore_progress)
        answers, _ = await session.generate(
            candidate, 256, 8, ignore_progress, probes=[samples[0].messages]
        )
    finally:
        await process.stop()
    assert sum(after) > sum(before) + 16 * 0.5
    assert answers[0].text.startswith("queue")


MEASURES = [("none", False), ("none", True), ("nf4", True)]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize(("quantisation", "checkpointing"), MEASURES)
@bitsandbytes_warns
def test_estimate_is_close_to_the_measured_peak(
    device: str, quantisation: str, checkpointing: bool, tmp_path: Path
) -> None:
    """270 million weights and 8 examples of about 300 tokens, including the fp32 copy for
    evaluation: estimate and measured peak differ by a factor of at most 1.5.
    """
    llama_config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=16,
    )
    save_random(llama_config, tmp_path, device)
    torch.cuda.empty_cache()
    shape = read_shape(tmp_path)
    assert shape is not None
    config = TrainingConfig.model_validate(
        {
            "batch_size": 8,
            "epochs": 1,
            "quantisation": quantisation,
            "gradient_checkpointing": checkpointing,
        }
    )
    # The first tokens differ: a shared prefix would be computed only once.
    examples = [
        EncodedExample((number, *each.ids[1:]), each.answer_start)
        for number, each in enumerate(random_examples(8, 32_000))
    ]
    lengths = [(len(example.ids), example.answer_tokens) for example in examples]
    estimate = estimate_needs(
        shape, config, "bf16", BatchTokens.largest(lengths, 8, config.max_tokens)
    ).total
    memory_before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    base = load_base(str(tmp_path), "bf16", quantisation)
    with trainable_adapter(base.train_model, config, None) as model:
        train(model, examples, config, device, lambda step: None)
    measured = torch.cuda.max_memory_allocated() - memory_before
    print(
        f"{quantisation}, checkpointing {checkpointing}: estimated {estimate:,}, measured "
        f"{measured:,}"
    )
    assert measured / 1.2 < estimate < measured * 1.5


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_gpu_out_of_memory_error_is_recognised(device: str) -> None:
    with pytest.raises(torch.OutOfMemoryError) as full:
        torch.empty(training_memory(device, None) + 1, dtype=torch.uint8, device=device)
    assert is_out_of_memory(full.value)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_machine_check_finds_the_gpu(device: str, tmp_path: Path) -> None:
    rows = {row.name: row for row in machine_checks(collect_facts(TrainerSettings(work=tmp_path)))}
    assert rows["cuda:0"].found.startswith(torch.cuda.get_device_name())
    assert best_precision(device) in rows["cuda:0"].found
    assert "CUDA" in rows["torch"].found
