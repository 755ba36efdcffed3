"""The training device of this machine, its precision and its memory."""

import os
from pathlib import Path

import torch

from services.trainer.machine.memory import UNLIMITED

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
