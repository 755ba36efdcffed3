"""The training device of this machine, its precision and its memory."""

import os
from pathlib import Path
from time import perf_counter

import torch

from services.trainer.machine.memory import UNLIMITED

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PROBE_SIZE, _PROBE_SECONDS, _PROBE_REPEATS = 1024, 0.5, 50

CGROUP = Path("/sys/fs/cgroup/memory.max")


def local_device() -> str:
    """Return the device on which this process trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: str) -> str:
    """Return the training precision for a device: bf16 if it has instructions for it, else fp16 on
    a GPU and fp32 on a CPU.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if has_bf16 else "fp32"


def matrix_rate(device: str, precision: str) -> float:
    """Measure the rate of a large matrix product in operations per second, within a second."""
    factor = torch.ones(_PROBE_SIZE, _PROBE_SIZE, dtype=_DTYPES[precision], device=device)
    best, started = float("inf"), perf_counter()
    for _ in range(_PROBE_REPEATS):
        begun = perf_counter()
        float((factor @ factor)[0, 0])  # reading a value waits for the device
        best = min(best, perf_counter() - begun)
        if perf_counter() - started > _PROBE_SECONDS:
            break
    return 2 * _PROBE_SIZE**3 / best


def training_memory(device: str, setting: int | None) -> int:
    """Return the maximum memory for training on a device in bytes, limited by `setting`.

    This is the total memory, not the free memory: a run that does not fit today only because of
    other processes is not rejected permanently. In a container it is the container's limit.
    """
    total = (
        int(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else main_memory()
    )
    return total if setting is None else min(total, setting)


def main_memory(cgroup: Path = CGROUP) -> int:
    """Return the memory of the machine or container in bytes; UNLIMITED if the system does not
    report it, as on Windows.
    """
    if not hasattr(os, "sysconf"):
        return UNLIMITED
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(cgroup.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return total
