"""The estimate of a run's memory: by hand on a small shape, in the large against a measured peak,
and what would make a run fit.
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
    FROZEN_CACHE_BYTES,
    WORKSPACE_BYTES,
    BatchTokens,
    ModelShape,
    estimate_needs,
    memory_refusal,
    smallest_change,
)
from services.trainer.training.base_shape import read_shape
from services.trainer.worker.client import TrainingProcess
from services.trainer.worker.model_session import ModelSession
from shared.config.training import TrainingConfig
from tests.trainer.tickets import DIGEST, tickets
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


def test_each_part_by_hand() -> None:
    """Rank 4 on q, k, v, o: 4 × ((8+8) + (8+4) + (8+4) + (8+8)) = 224 weights. Ten tokens in bf16,
    per token and layer: two norms in fp32 of 8 (64 bytes), the input of q, k and v (16), that of o
    (16), four of attention's 8 (64) and three of the 16 in between (96): 256. Three answer tokens:
    100 logits each, twice in bf16 and once in fp32, and a slope of 8.
    """
    found = estimate_needs(SHAPE, TrainingConfig(rank=4, alpha=8), "bf16", BatchTokens(10, 3))
    assert (found.eval_model, found.train_model) == (4 * 1128, 2 * 1128)
    assert (found.adapter, found.gradients, found.optimizer) == (4 * 224, 4 * 224, 8 * 224)
    assert found.activations == 10 * 256
    assert found.logits == 3 * (100 * 8 + 16)
    assert found.total == 6 * 1128 + 16 * 224 + 2560 + 2448 + WORKSPACE_BYTES


def test_layers_that_are_not_adapted_need_neither_an_adapter_nor_activations() -> None:
    """Of 22 layers the last 11."""
    whole, half = (
        estimate_needs(LARGE, TrainingConfig(layers=layers), "bf16", BatchTokens(10, 3))
        for layers in (None, 11)
    )
    assert (2 * half.adapter, 2 * half.activations) == (whole.adapter, whole.activations)
    assert (half.frozen_cache, whole.frozen_cache) == (FROZEN_CACHE_BYTES, 0)
    assert estimate_needs(LARGE, TrainingConfig(layers=22), "bf16", BatchTokens(10, 3)) == whole
    told = memory_refusal(LARGE, TrainingConfig(layers=11), "bf16", LENGTHS, 1 << 30)
    assert told is not None
    assert "what is below the adapted layers 256 MiB" in told[0]


def test_dropout_keeps_a_copy_of_each_input_and_its_mask() -> None:
    """Three inputs of q, k and v and one of o, of 8 numbers with 2 + 1 bytes, instead of two with
    2.
    """
    without, with_it = (
        estimate_needs(
            SHAPE, TrainingConfig(rank=4, alpha=8, dropout=share), "bf16", BatchTokens(10, 3)
        )
        for share in (0.0, 0.1)
    )
    assert with_it.activations - without.activations == 10 * (4 * 8 * 3 - 2 * 8 * 2)


def test_of_many_logits_some_are_in_memory_at_a_time_unless_the_model_cannot_pack() -> None:
    """2^24 logits of 32,000 each are 524 tokens: 2 + 2 + 4 bytes for each logit, and a slope of
    2,048 x 2 bytes for each of 2,400 tokens. All 2,400 at once are 2 + 12 bytes for each logit.
    """
    work = BatchTokens(7200, 2400)
    assert (
        estimate_needs(LARGE, TrainingConfig(), "bf16", work).logits
        == 524 * 32_000 * 8 + 2400 * 2048 * 2
    )
    assert (
        estimate_needs(replace(LARGE, packed=False), TrainingConfig(), "bf16", work).logits
        == 2400 * 32_000 * 14
    )


def test_in_fp32_the_judge_is_trained_on_and_in_4_bits_the_projections_shrink() -> None:
    """320 weights in 4.127 bits are 165 bytes; the other 808 are fp32."""
    assert estimate_needs(SHAPE, TrainingConfig(), "fp32", BatchTokens(1, 1)).train_model == 0
    assert (
        estimate_needs(
            SHAPE, TrainingConfig(quantisation="nf4"), "bf16", BatchTokens(1, 1)
        ).train_model
        == 165 + 4 * 808
    )


def test_what_is_in_memory_at_a_time_is_the_longest_batch() -> None:
    """Of three examples, two at a time: 2 × 9 tokens with the padding, 4 + 3 answer tokens. Without
    examples each is as long as may be.
    """
    lengths = [(5, 4), (9, 2), (7, 3)]
    assert BatchTokens.largest(lengths, 2, 100) == BatchTokens(18, 7)
    assert BatchTokens.largest(lengths, 8, 6) == BatchTokens(18, 9)
    assert BatchTokens.largest([], 2, 100) == BatchTokens(200, 100)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 32), st.sampled_from(["bf16", "fp32"]))
def test_advice_fits_and_comes_only_where_it_is_needed(
    gibibytes: int, batch_size: int, precision: str
) -> None:
    limit = gibibytes * 2**30
    config = TrainingConfig(batch_size=batch_size)
    told = memory_refusal(LARGE, config, precision, LENGTHS, limit)
    fits = (
        estimate_needs(
            LARGE, config, precision, BatchTokens.largest(LENGTHS, batch_size, config.max_tokens)
        ).total
        <= limit
    )
    assert (told is None) == fits
    advice = smallest_change(LARGE, config, precision, LENGTHS, limit)
    if advice is not None:
        work = BatchTokens.largest(LENGTHS, advice.config.batch_size, advice.config.max_tokens)
        assert estimate_needs(LARGE, advice.config, precision, work).total <= limit
        TrainingConfig.model_validate(advice.config.model_dump())
    elif told is not None:
        assert "smaller base" in told[1]


def test_the_first_change_is_the_one_that_changes_nothing_of_what_is_learned() -> None:
    """By hand, per token: a layer keeps 16,384 (norms) + 8,192 (inputs) + 2 × (8,192 + 16,896) =
    74,752 bytes, so 22 keep 1.64 MB; with checkpointing 22 × 4,096 + 74,752 = 0.16 MB. Eight
    examples of 900 tokens take 1.19 GB with checkpointing and 0.14 GB of logits. Without it one
    takes 1.48 GB, which is more: what comes next are fewer at a time with checkpointing.
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
    told = memory_refusal(LARGE, config, "bf16", LENGTHS, checkpointed)
    assert checkpointed < whole
    assert told is not None
    assert told[1] == "it fits with gradient_checkpointing: true"
    smaller = smallest_change(LARGE, config, "bf16", LENGTHS, checkpointed - 1)
    assert smaller is not None
    assert smaller.description == "gradient_checkpointing: true, batch_size: 4"


def test_measures_are_read_from_the_files_headers(tmp_path: Path) -> None:
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
    with pytest.raises(RunFailed, match="measures"):
        read_shape(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"n_embd": 8}')
    assert read_shape(tmp_path) is None


def test_a_container_has_no_more_than_its_limit(tmp_path: Path) -> None:
    assert main_memory(tmp_path / "none") > 2**30
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert main_memory(tmp_path / "memory.max") == 2**30
    (tmp_path / "memory.max").write_text("max\n")
    assert main_memory(tmp_path / "memory.max") > 2**30


@pytest.mark.model
async def test_a_run_that_cannot_fit_is_refused_before_anything_is_loaded(bases: Path) -> None:
    """SmolLM2's weights take 135 million × 6 bytes in bf16, the fp32 copy included: more than half
    a gibibyte.
    """
    child = TrainingProcess(0, structlog.stdlib.get_logger(), memory_limit=2**29)
    bench = ModelSession(child, LocalBase(bases / "smollm2-135m-instruct", "small", DIGEST), "bf16")
    try:
        with pytest.raises(RunFailed, match=r"needs about .* and there are 512 MiB"):
            await bench.estimate_memory(tickets(0, 4), TrainingConfig(precision="bf16"))
        with pytest.raises(RunFailed, match="needs about"):
            await bench.load()
    finally:
        await child.stop()


MEASURE = """
import sys
from pathlib import Path
import peft, torch
from services.trainer.training.base_model import learning, load_base
from services.trainer.training.recipe import train
from services.trainer.data.tokenization import Encoded
from shared.config.training import TrainingConfig

def peak():
    # That of this program: the figure of getrusage is never less than what its parent had.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

before = peak()
base = load_base(sys.argv[1], sys.argv[2])
config = TrainingConfig(precision=sys.argv[2], batch_size=4, epochs=1, gradient_checkpointing=sys.argv[3] == "True")
# They begin with different tokens: what examples begin alike with is computed once.
examples = [Encoded(tuple(range(first, first + 256)), 156) for first in (100, 1000, 2000, 3000)]
with learning(base.train, config, None) as model:
    train(model, examples, config, "cpu", lambda step: None)
print(peak() - before)
"""


@pytest.mark.model
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_is_within_a_factor_of_two_of_a_measured_peak(
    bases: Path, checkpointing: bool
) -> None:
    """One step of four examples of 256 tokens, 100 of them the answer's, in a process of its own,
    in the machine's own precision: others take minutes.
    """
    folder = bases / "smollm2-135m-instruct"
    shape = read_shape(folder)
    assert shape is not None
    precision = best_precision("cpu")
    config = TrainingConfig.model_validate(
        {"precision": precision, "batch_size": 4, "gradient_checkpointing": checkpointing}
    )
    estimate = estimate_needs(shape, config, precision, BatchTokens(4 * 256, 4 * 100)).total
    # Freed memory goes back: what the heap keeps of it is not what a run needs.
    told = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
    }
    measuring = [sys.executable, "-c", MEASURE, str(folder), precision, str(checkpointing)]
    done = subprocess.run(measuring, capture_output=True, text=True, check=True, env=told)
    measured = int(done.stdout)
    assert measured / 2 < estimate < measured * 2, f"estimated {estimate:,}, measured {measured:,}"
    print(f"checkpointing {checkpointing}: estimated {estimate:,}, measured {measured:,}")
