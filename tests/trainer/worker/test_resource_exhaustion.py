"""Errors are classified by the exhausted resource, and advice names only settings that can still be
lowered.
"""

import errno

import pytest
import torch
from safetensors import SafetensorError

from services.trainer.worker.resource_exhaustion import (
    is_disk_full,
    is_out_of_memory,
    memory_advice,
)
from shared.config.training import TrainingConfig


def test_cpu_out_of_memory_message_of_torch_is_recognised() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_out_of_memory_errors(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_disk_full(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_disk_full_errors(error: Exception) -> None:
    assert is_disk_full(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        OSError(errno.ENOENT, "no such file"),
        SafetensorError("(os error 2)"),
    ],
)
def test_other_errors_are_not_resource_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert not is_disk_full(error)


def test_advice_halves_reducible_settings() -> None:
    advice = memory_advice(TrainingConfig(batch_size=10, max_tokens=1024))
    assert "batch_size 5 (now 10" in advice
    assert "gradient_checkpointing" in advice
    assert "nf4" in advice
    assert "max_tokens 512" in advice


def test_minimal_settings_are_not_advised() -> None:
    lowest = TrainingConfig(
        batch_size=1, gradient_checkpointing=True, quantisation="nf4", max_tokens=256
    )
    assert memory_advice(lowest) == "use a smaller base, or a machine with more memory"
