"""Checks of a machine's ability to train. Pure: facts about the machine in, rows out."""

from dataclasses import dataclass

from services.trainer.machine.memory import UNLIMITED, format_bytes
from shared.machine_check import Check, CheckState
from shared.version import install_command

SMALL_GPU = 12 * 2**30
SCARCE_DISK, NO_DISK = 10 * 2**30, 2**30
INSTALL = f"{install_command('trainer')}; not needed on machines that only send feedback"


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    memory: int
    bf16: bool


@dataclass(frozen=True)
class LaneMemory:
    """Memory that a lane's longest batch needs. `required_bytes` is None if the base's dimensions
    are unknown; `missing_reason` explains a missing base. `adapted` counts layers by projection,
    and `absent_targets` name none of the base's.
    """

    model: str
    lane: str
    quantisation: str
    required_bytes: int | None
    advice: str = ""
    missing_reason: str = ""
    adapted: str = ""
    absent_targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineFacts:
    """Facts about a machine.

    `torch` and `bitsandbytes` are versions, or None if they cannot be imported. `cuda` is the CUDA
    version of the torch build, None in a CPU build. `memory` is the maximum for training, on the
    device in use.
    """

    system: str
    is_wsl: bool
    torch: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    has_nvidia_driver: bool
    bitsandbytes: str | None
    cores: int
    cpu_bf16: bool
    memory: int
    work_free: int | None
    lanes: tuple[LaneMemory, ...] = ()
    models_error: str = ""


def machine_checks(facts: MachineFacts) -> list[Check]:
    """Build the rows, in the order in which problems should be fixed."""
    rows = [_system(facts), _torch(facts)]
    if facts.torch is not None:
        rows += [*_devices(facts), _bitsandbytes(facts)]
    rows.append(_work(facts))
    if facts.models_error:
        rows.append(
            Check(
                name="models",
                state="problem",
                found=facts.models_error,
                advice="correct the file, or name the folder",
            )
        )
    return rows + [_lane(lane, facts) for lane in facts.lanes]


def _system(facts: MachineFacts) -> Check:
    if facts.system == "Windows":
        advice = "run Ratchet in WSL2: bitsandbytes and signals work there as on Linux"
        return Check(name="system", state="warning", found="Windows", advice=advice)
    return Check(
        name="system", state="ok", found=f"{facts.system} in WSL2" if facts.is_wsl else facts.system
    )


def _torch(facts: MachineFacts) -> Check:
    if facts.torch is None:
        return Check(name="torch", state="problem", found="not installed", advice=INSTALL)
    return Check(
        name="torch",
        state="ok",
        found=f"{facts.torch}, " + (f"CUDA {facts.cuda}" if facts.cuda else "for CPUs"),
    )


def _devices(facts: MachineFacts) -> list[Check]:
    if facts.gpus:
        return [_gpu(number, gpu) for number, gpu in enumerate(facts.gpus)]
    cores = f"{facts.cores} core" + "s" * (facts.cores != 1)
    if facts.has_nvidia_driver:
        advice = (
            "a GPU driver is installed, but torch sees no device: install a CUDA build of torch, "
            "or a driver that matches its version"
        )
        return [
            Check(
                name="device",
                state="warning",
                found=f"no CUDA device; CPU with {cores}",
                advice=advice,
            )
        ]
    if not facts.cpu_bf16:
        advice = (
            "training uses fp32, at about two thirds of the speed and with more memory; use a CPU "
            "with avx512_bf16 or amx_bf16"
        )
        return [
            Check(
                name="device",
                state="warning",
                found=f"CPU with {cores}, without bf16",
                advice=advice,
            )
        ]
    return [Check(name="device", state="ok", found=f"CPU with {cores}, with bf16; no CUDA device")]


def _gpu(number: int, gpu: Gpu) -> Check:
    found = f"{gpu.name}, {format_bytes(gpu.memory)}, {'bf16' if gpu.bf16 else 'fp16'}"
    if gpu.memory < SMALL_GPU:
        advice = "under 12 GiB: use a small base, or quantisation: nf4 with a small batch_size"
        return Check(name=f"cuda:{number}", state="warning", found=found, advice=advice)
    return Check(name=f"cuda:{number}", state="ok", found=found)


def _bitsandbytes(facts: MachineFacts) -> Check:
    if facts.bitsandbytes is not None:
        return Check(name="bitsandbytes", state="ok", found=facts.bitsandbytes)
    nf4_lanes = [f"{lane.model}/{lane.lane}" for lane in facts.lanes if lane.quantisation == "nf4"]
    if nf4_lanes:
        advice = "install bitsandbytes, or set quantisation: none"
        return Check(
            name="bitsandbytes",
            state="problem",
            found=f"cannot be imported; {', '.join(nf4_lanes)} train in 4 bits",
            advice=advice,
        )
    advice = "not needed unless a lane sets quantisation: nf4"
    return Check(name="bitsandbytes", state="warning", found="cannot be imported", advice=advice)


def _work(facts: MachineFacts) -> Check:
    advice = "RATCHET_WORK names the folder of unfinished runs and their checkpoints"
    if facts.work_free is None:
        return Check(
            name="work", state="problem", found="the work folder is not writable", advice=advice
        )
    state: CheckState = (
        "problem"
        if facts.work_free < NO_DISK
        else "warning"
        if facts.work_free < SCARCE_DISK
        else "ok"
    )
    return Check(
        name="work",
        state=state,
        found=f"{format_bytes(facts.work_free)} free",
        advice="" if state == "ok" else f"free disk space; {advice}",
    )


def _lane(lane: LaneMemory, facts: MachineFacts) -> Check:
    name = f"{lane.model}/{lane.lane}"
    if lane.missing_reason:
        return Check(
            name=name,
            state="problem",
            found=lane.missing_reason,
            advice="RATCHET_BASES names the folder of base models",
        )
    if lane.absent_targets:
        return Check(
            name=name,
            state="problem",
            found=f"the targets {', '.join(lane.absent_targets)} name no projection of the base",
            advice="change the lane's targets; experts of a mixture are not adapted",
        )
    if lane.required_bytes is None:
        return Check(
            name=name,
            state="ok",
            found="the base is available; its memory cannot be estimated",
        )
    available = format_bytes(facts.memory) if facts.memory < UNLIMITED else "an unknown amount"
    found = f"the longest batch needs about {format_bytes(lane.required_bytes)} of {available}"
    if lane.required_bytes > facts.memory:
        return Check(
            name=name,
            state="warning",
            found=found,
            advice=f"batches of long examples would be rejected; {lane.advice}",
        )
    return Check(name=name, state="ok", found=f"{found}; adapts {lane.adapted}")
