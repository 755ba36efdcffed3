"""The device that trains here, what it computes in, and its memory."""

import os
from pathlib import Path

import torch

from services.trainer.machine.memory import UNLIMITED

CGROUP = Path("/sys/fs/cgroup/memory.max")


def local_device() -> str:
    """Where this process trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: str) -> str:
    """The training precision for a device: bf16 where there are instructions for it, else fp16 on a
    GPU and fp32 on a CPU.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    abilities = torch.cpu.get_capabilities()
    return (
        "bf16"
        if abilities.get("avx512_bf16") or abilities.get("amx_bf16") or abilities.get("bf16")
        else "fp32"
    )


def training_memory(device: str, setting: int | None) -> int:
    """All the memory that training may ever have on a device, in bytes, and no more than `setting`.

    It is what there is, not what is free at the moment: a run that does not fit today only because
    of its neighbours is not refused for good. In a container it is the container's.
    """
    there = (
        int(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else main_memory()
    )
    return there if setting is None else min(there, setting)


def main_memory(cgroup: Path = CGROUP) -> int:
    """UNLIMITED where the system does not tell, as Windows."""
    if not hasattr(os, "sysconf"):
        return UNLIMITED
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(there, int(cgroup.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return there
