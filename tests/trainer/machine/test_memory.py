"""Memory estimate: hand calculation for a small shape, comparison with a measured peak, and changes
that make a run fit.
"""

import os
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.errors import RunFailed
from services.trainer.machine.bases import LocalBase
from services.trainer.machine.device import best_precision, main_memory
from services.trainer.machine.memory import (
    EVALUATION_CACHE_BYTES,
    FROZEN_CACHE_BYTES,
    WORKSPACE_BYTES,
    BatchTokens,
    ModelShape,
    estimate_needs,
)
from services.trainer.machine.memory_fit import memory_refusal, smallest_change
from services.trainer.training.base_shape import read_shape
from services.trainer.worker.client import TrainingProcess
from services.trainer.worker.model_session import ModelSession
from shared.config.training import TrainingConfig
from shared.events.hyperparameters import ATTENTION_PROJECTIONS
from tests.support.tickets import DIGEST, tickets
from tests.trainer.tiny import tiny_model

SHAPE = ModelShape(
    tensors={
        "model.embed_tokens.weight": (100, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.k_proj.weight": (4, 8),
        "model.layers.0.self_attn.v_proj.weight": (4, 8),
        "model.layers.0.self_attn.o_proj.weight": (8, 8),
        "model.layers.0.mlp.up_proj.weight": (16, 8),
        "model.layers.0.input_layernorm.weight": (8,),
    },
    layers=1,
    hidden=8,
    intermediate=16,
    heads=2,
    head_size=4,
    vocabulary=100,
)
"""800 + 64 + 32 + 32 + 64 + 128 + 8 = 1128 parameters, of which 320 are in projections."""

LARGE = ModelShape(
    tensors={"model.embed_tokens.weight": (32_000, 2048)}
    | {
        f"model.layers.{layer}.self_attn.{name}.weight": (2048, 2048)
        for layer in range(22)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    | {
        f"model.layers.{layer}.mlp.{name}.weight": (5632, 2048)
        for layer in range(22)
        for name in ("gate_proj", "up_proj", "down_proj")
    },
    layers=22,
    hidden=2048,
    intermediate=5632,
    heads=32,
    head_size=64,
    vocabulary=32_000,
)
"""About a billion parameters."""

LENGTHS = [(900, 300)] * 20
ATTENTION = TrainingConfig(rank=4, alpha=8, targets=ATTENTION_PROJECTIONS)


def test_each_part_matches_hand_calculation() -> None:
    """Rank 4 on q, k, v, o: 4 × ((8+8) + (8+4) + (8+4) + (8+8)) = 224 weights. Ten tokens in bf16,
    per token and layer: two norms in fp32 of 8 (64 bytes), the input of q, k and v (16), that of o
    (16), four of attention's 8 (64) and three of the 16 of the MLP (96): 256. Three answer tokens:
    100 logits each, twice in bf16 and once in fp32, and a gradient of 8.
    """
    needs = estimate_needs(SHAPE, ATTENTION, "bf16", BatchTokens(10, 3))
    assert (needs.eval_model, needs.train_model) == (4 * 1128, 2 * 1128)
    assert (needs.adapter, needs.gradients, needs.optimizer) == (4 * 224, 4 * 224, 8 * 224)
    assert needs.activations == 10 * 256
    assert needs.logits == 3 * (100 * 8 + 16)
    assert needs.total == 6 * 1128 + 16 * 224 + 2560 + 2448 + WORKSPACE_BYTES


def test_frozen_layers_need_no_adapter_and_no_activations() -> None:
    """Adapts the last 11 of 22 layers."""
    whole, half = (
        estimate_needs(LARGE, TrainingConfig(layers=layers), "bf16", BatchTokens(10, 3))
        for layers in (None, 11)
    )
    assert (2 * half.adapter, 2 * half.activations) == (whole.adapter, whole.activations)
    caches = FROZEN_CACHE_BYTES + EVALUATION_CACHE_BYTES
    assert (half.frozen_cache, whole.frozen_cache) == (caches, 0)
    assert estimate_needs(LARGE, TrainingConfig(layers=22), "bf16", BatchTokens(10, 3)) == whole
    refusal = memory_refusal(LARGE, TrainingConfig(layers=11), "bf16", LENGTHS, 1 << 30)
    assert refusal is not None
    assert "cache of the frozen layers 384 MiB" in refusal[0]


def test_dropout_keeps_copies_of_inputs_and_masks() -> None:
    """Three inputs of q, k and v and one of o, of 8 numbers with 2 + 1 bytes, instead of two with
    2.
    """
    without, with_it = (
        estimate_needs(SHAPE, ATTENTION.with_values({"dropout": share}), "bf16", BatchTokens(10, 3))
        for share in (0.0, 0.1)
    )
    assert with_it.activations - without.activations == 10 * (4 * 8 * 3 - 2 * 8 * 2)


def test_logits_are_chunked_if_the_model_is_packed() -> None:
    """2^24 logits of 32,000 each are 524 tokens: 2 + 2 + 4 bytes per logit, and a gradient of 2,048
    x 2 bytes for each of 2,400 tokens. All 2,400 tokens at once take 2 + 12 bytes per logit.
    """
    batch = BatchTokens(7200, 2400)
    assert (
        estimate_needs(LARGE, TrainingConfig(), "bf16", batch).logits
        == 524 * 32_000 * 8 + 2400 * 2048 * 2
    )
    assert (
        estimate_needs(replace(LARGE, packed=False), TrainingConfig(), "bf16", batch).logits
        == 2400 * 32_000 * 14
    )


def test_training_copy_in_fp32_and_in_4_bits() -> None:
    """In fp32 the evaluation model is trained, so no copy is needed. 320 weights in 4.127 bits are
    165 bytes; the other 808 are fp32.
    """
    assert estimate_needs(SHAPE, TrainingConfig(), "fp32", BatchTokens(1, 1)).train_model == 0
    assert (
        estimate_needs(
            SHAPE, TrainingConfig(quantisation="nf4"), "bf16", BatchTokens(1, 1)
        ).train_model
        == 165 + 4 * 808
    )


def test_memory_holds_the_largest_batch() -> None:
    """Three examples, two at a time: 2 × 9 tokens with padding, 4 + 3 answer tokens. Without
    examples each has the maximum length.
    """
    lengths = [(5, 4), (9, 2), (7, 3)]
    assert BatchTokens.largest(lengths, 2, 100) == BatchTokens(18, 7)
    assert BatchTokens.largest(lengths, 8, 6) == BatchTokens(18, 9)
    assert BatchTokens.largest([], 2, 100) == BatchTokens(200, 100)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 32), st.sampled_from(["bf16", "fp32"]))
def test_advice_fits_and_is_given_only_if_needed(
    gibibytes: int, batch_size: int, precision: str
) -> None:
    limit = gibibytes * 2**30
    config = TrainingConfig(batch_size=batch_size)
    refusal = memory_refusal(LARGE, config, precision, LENGTHS, limit)
    fits = (
        estimate_needs(
            LARGE, config, precision, BatchTokens.largest(LENGTHS, batch_size, config.max_tokens)
        ).total
        <= limit
    )
    assert (refusal is None) == fits
    advice = smallest_change(LARGE, config, precision, LENGTHS, limit)
    if advice is not None:
        batch = BatchTokens.largest(LENGTHS, advice.config.batch_size, advice.config.max_tokens)
        assert estimate_needs(LARGE, advice.config, precision, batch).total <= limit
        TrainingConfig.model_validate(advice.config.model_dump())
    elif refusal is not None:
        assert "smaller base" in refusal[1]


def test_first_change_does_not_affect_the_result() -> None:
    """By hand, per token: a layer keeps 16,384 (norms) + 8,192 (inputs) + 2 × (8,192 + 16,896) =
    74,752 bytes, so 22 layers keep 1.64 MB; with checkpointing 22 × 4,096 + 74,752 = 0.16 MB. Eight
    examples of 900 tokens take 1.19 GB with checkpointing and 0.14 GB of logits. Without it a
    single example takes 1.48 GB, which is more, so the next candidates are smaller batches with
    checkpointing.
    """
    config = TrainingConfig(batch_size=8)
    whole, checkpointed = (
        estimate_needs(
            LARGE,
            config.model_copy(update={"gradient_checkpointing": on}),
            "bf16",
            BatchTokens.largest(LENGTHS, 8, 1024),
        ).total
        for on in (False, True)
    )
    refusal = memory_refusal(LARGE, config, "bf16", LENGTHS, checkpointed)
    assert checkpointed < whole
    assert refusal is not None
    assert refusal[1] == "it fits with gradient_checkpointing: true"
    smaller = smallest_change(LARGE, config, "bf16", LENGTHS, checkpointed - 1)
    assert smaller is not None
    assert smaller.description == "gradient_checkpointing: true, batch_size: 4"


def test_dimensions_are_read_from_file_headers(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (shape.layers, shape.hidden, shape.intermediate, shape.heads, shape.head_size) == (
        2,
        32,
        48,
        4,
        8,
    )
    assert sum(map(prod, shape.projections())) == 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48)
    with pytest.raises(RunFailed, match=r"cannot be loaded: .*config\.json"):
        read_shape(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"n_embd": 8}')
    assert read_shape(tmp_path) is None


def test_container_limit_applies(tmp_path: Path) -> None:
    assert main_memory(tmp_path / "none") > 2**30
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert main_memory(tmp_path / "memory.max") == 2**30
    (tmp_path / "memory.max").write_text("max\n")
    assert main_memory(tmp_path / "memory.max") > 2**30


@pytest.mark.model
async def test_run_that_cannot_fit_is_refused_before_loading(bases: Path) -> None:
    """SmolLM2's weights take 135 million × 6 bytes in bf16, including the fp32 copy: more than half
    a gibibyte.
    """
    process = TrainingProcess(0, structlog.stdlib.get_logger(), memory_limit=2**29)
    session = ModelSession(
        process, LocalBase(bases / "smollm2-135m-instruct", "small", DIGEST), "bf16"
    )
    try:
        with pytest.raises(RunFailed, match=r"needs about .* and the limit is 512 MiB"):
            await session.estimate_memory(tickets(0, 4), TrainingConfig(precision="bf16"))
        with pytest.raises(RunFailed, match="needs about"):
            await session.load()
    finally:
        await process.stop()


MEASURE = """
import sys
from pathlib import Path
import peft, torch
from services.trainer.training.base_model import load_base, trainable_adapter
from services.trainer.training.recipe import train
from services.trainer.data.tokenization import EncodedExample
from shared.config.training import TrainingConfig
from shared.events.hyperparameters import ATTENTION_PROJECTIONS

def peak():
    # The peak of this program: that of getrusage is never below its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

before = peak()
base = load_base(sys.argv[1], sys.argv[2])
config = TrainingConfig(
    precision=sys.argv[2],
    batch_size=4,
    epochs=1,
    gradient_checkpointing=sys.argv[3] == "True",
)
# The first tokens differ: a shared prefix would be computed only once.
starts = (100, 1000, 2000, 3000)
examples = [EncodedExample(tuple(range(start, start + 256)), 156) for start in starts]
with trainable_adapter(base.train_model, config, None) as model:
    train(model, examples, config, "cpu", lambda step: None)
print(peak() - before)
"""


@pytest.mark.model
@pytest.mark.parametrize("checkpointing", [False, True])
def test_estimate_is_within_a_factor_of_two_of_the_peak(bases: Path, checkpointing: bool) -> None:
    """One step of four examples of 256 tokens, 100 of them answer tokens, in a separate process and
    in the machine's own precision: other precisions take minutes.
    """
    folder = bases / "smollm2-135m-instruct"
    shape = read_shape(folder)
    assert shape is not None
    precision = best_precision("cpu")
    config = TrainingConfig.model_validate(
        {"precision": precision, "batch_size": 4, "gradient_checkpointing": checkpointing}
    )
    estimate = estimate_needs(shape, config, precision, BatchTokens(4 * 256, 4 * 100)).total
    # Return freed memory to the system: memory kept by the heap is not needed by the run.
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
    }
    command = [sys.executable, "-c", MEASURE, str(folder), precision, str(checkpointing)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    measured = int(process.stdout)
    assert measured / 2 < estimate < measured * 2, f"estimated {estimate:,}, measured {measured:,}"
    print(f"checkpointing {checkpointing}: estimated {estimate:,}, measured {measured:,}")
