"""Machine check: from facts to rows with advice."""

from dataclasses import replace

import pytest

from services.trainer.environment import CHECKS
from services.trainer.machine.checks import Gpu, LaneMemory, MachineFacts, machine_checks
from shared.machine_check import Check, has_problem

GIB = 2**30
LANE = LaneMemory("support", "adaptive", "none", required_bytes=4 * GIB)
GOOD = MachineFacts(
    system="Linux",
    is_wsl=False,
    torch="2.15.0",
    cuda="13.0",
    gpus=(Gpu("H100", 80 * GIB, bf16=True),),
    has_nvidia_driver=True,
    bitsandbytes="0.50.2",
    cores=16,
    cpu_bf16=True,
    memory=80 * GIB,
    work_free=100 * GIB,
    lanes=(LANE,),
)


def row(facts: MachineFacts, name: str) -> Check:
    (check,) = (check for check in machine_checks(facts) if check.name == name)
    return check


def test_good_machine_has_no_advice() -> None:
    checks = machine_checks(GOOD)
    assert [check.name for check in checks] == [
        "system",
        "torch",
        "cuda:0",
        "bitsandbytes",
        "work",
        "support/adaptive",
    ]
    assert {check.state for check in checks} == {"ok"}
    assert not any(check.advice for check in checks)


def test_windows_is_warned_and_wsl2_is_ok() -> None:
    windows = row(replace(GOOD, system="Windows"), "system")
    assert windows.state == "warning"
    assert "WSL2" in windows.advice
    assert row(replace(GOOD, is_wsl=True), "system") == Check(
        name="system", state="ok", found="Linux in WSL2"
    )


@pytest.mark.parametrize(("gibibytes", "state"), [(8, "warning"), (11.99, "warning"), (12, "ok")])
def test_gpu_under_12_gib_is_warned(gibibytes: float, state: str) -> None:
    small = row(replace(GOOD, gpus=(Gpu("RTX", int(gibibytes * GIB), bf16=False),)), "cuda:0")
    assert small.state == state
    assert ("nf4" in small.advice) == (state == "warning")
    assert "fp16" in small.found


def test_each_gpu_has_a_row() -> None:
    gpus = (Gpu("A", 80 * GIB, bf16=True), Gpu("B", 8 * GIB, bf16=True))
    assert [row(replace(GOOD, gpus=gpus), f"cuda:{number}").state for number in (0, 1)] == [
        "ok",
        "warning",
    ]


def test_cpu_is_used_without_a_gpu() -> None:
    cpu = replace(GOOD, gpus=(), has_nvidia_driver=False, cuda=None, cores=1)
    assert row(cpu, "device") == Check(
        name="device", state="ok", found="CPU with 1 core, with bf16; no CUDA device"
    )
    slow = row(replace(cpu, cpu_bf16=False, cores=8), "device")
    assert (slow.state, slow.found) == ("warning", "CPU with 8 cores, without bf16")
    assert "fp32" in slow.advice
    no_device = row(replace(cpu, has_nvidia_driver=True), "device")
    assert no_device.state == "warning"
    assert "driver" in no_device.advice


def test_missing_bitsandbytes_is_a_problem_only_for_nf4() -> None:
    without = replace(GOOD, bitsandbytes=None)
    assert row(without, "bitsandbytes").state == "warning"
    with_nf4 = row(replace(without, lanes=(replace(LANE, quantisation="nf4"),)), "bitsandbytes")
    assert with_nf4.state == "problem"
    assert "support/adaptive" in with_nf4.found


def test_missing_torch_is_a_problem_without_device_rows() -> None:
    checks = machine_checks(replace(GOOD, torch=None, gpus=(), lanes=()))
    assert [check.name for check in checks] == ["system", "torch", "work"]
    assert has_problem(checks)
    assert ".[trainer]" in checks[1].advice


@pytest.mark.parametrize(
    ("free", "state"),
    [(None, "problem"), (GIB // 2, "problem"), (5 * GIB, "warning"), (10 * GIB, "ok")],
)
def test_free_disk_space(free: int | None, state: str) -> None:
    check = row(replace(GOOD, work_free=free), "work")
    assert check.state == state
    assert bool(check.advice) == (state != "ok")


def test_lanes_report_memory_and_missing_bases() -> None:
    tight = row(
        replace(GOOD, memory=3 * GIB, lanes=(replace(LANE, advice="it fits with batch_size: 2"),)),
        "support/adaptive",
    )
    assert (tight.state, tight.found) == (
        "warning",
        "the longest batch needs about 4.0 GiB of 3.0 GiB",
    )
    assert "batch_size: 2" in tight.advice
    assert (
        row(
            replace(GOOD, lanes=(replace(LANE, missing_reason="no folder"),)), "support/adaptive"
        ).state
        == "problem"
    )
    assert (
        row(replace(GOOD, lanes=(replace(LANE, required_bytes=None),)), "support/adaptive").state
        == "ok"
    )
    assert row(replace(GOOD, models_error="a.yaml:3: rank"), "models").state == "problem"


def test_rows_survive_json() -> None:
    checks = machine_checks(replace(GOOD, system="Windows"))
    assert CHECKS.validate_json(CHECKS.dump_json(checks)) == checks


def test_targets_of_a_lane_are_counted_or_refused() -> None:
    adapted = replace(LANE, adapted="self_attn.q_proj in 10 layers")
    assert machine_checks(replace(GOOD, lanes=(adapted,)))[-1].found.endswith(
        "; adapts self_attn.q_proj in 10 layers"
    )
    refused = machine_checks(replace(GOOD, lanes=(replace(LANE, absent_targets=("x_proj",)),)))[-1]
    assert (refused.state, "x_proj" in refused.found) == ("problem", True)
