"""Placement of a training process on a Ray cluster, and the errors when it fails. The cluster is a
fake with state.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from services.trainer.protocol import Load, Loaded
from services.trainer.settings import TrainerSettings
from services.trainer.worker.client import TrainingProcess, ray_launch
from services.trainer.worker.ray_actor import PROBE_REPLY, RayTrainingProcess
from services.trainer.worker.ray_worker import (
    PLACEMENT_TIMEOUT_SECONDS,
    RayWorker,
    WorkerUnavailable,
)
from shared.config.settings import read_settings
from shared.errors import Misconfigured, RatchetError, SettingsError, Unavailable


class GetTimeoutError(Exception):
    pass


class FakeRay:
    """A cluster within this process. The first call to an actor raises `failure`."""

    exceptions = SimpleNamespace(GetTimeoutError=GetTimeoutError)

    def __init__(self, failure: Exception | None = None) -> None:
        self.util = SimpleNamespace(list_named_actors=lambda: list(self.actors))
        self.actors: dict[str, dict[str, Any]] = {}
        self.tries = 0
        self.connected = False
        self._failure = failure

    def shutdown(self) -> None:
        self.connected = False

    def init(self, address: str, **_: object) -> None:
        assert not self.connected
        self.connected = True
        self.tries += 1
        if address == "forking:1" and self.tries == 1:
            raise ConnectionAbortedError("Starting Ray client server failed")
        if address == "nowhere:1":
            raise ConnectionError("no answer\nand much else")
        if address == "older:1":
            raise RuntimeError("Version mismatch: 2.9 and 2.51")

    def remote(self, kind: type[RayTrainingProcess]) -> Any:
        assert kind is RayTrainingProcess
        return SimpleNamespace(
            options=lambda **options: SimpleNamespace(remote=lambda: self._actor(options))
        )

    def _actor(self, options: dict[str, Any]) -> Any:
        self.actors[options["name"]] = options
        process = RayTrainingProcess()
        process.start = lambda *_: None  # type: ignore[method-assign]  # no process
        methods = {
            name: SimpleNamespace(remote=self._remote_call(getattr(process, name)))
            for name in ("missing", "start")
        }
        return SimpleNamespace(name=options["name"], **methods)

    def _remote_call(self, method: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
        return lambda *arguments: lambda: method(*arguments)

    def get(self, call: Callable[[], Any], timeout: float | None = None) -> Any:
        assert timeout in (None, PLACEMENT_TIMEOUT_SECONDS)
        if self._failure:
            raise self._failure
        return call()

    def get_actor(self, name: str) -> Any:
        return SimpleNamespace(name=name)

    def kill(self, actor: Any) -> None:
        del self.actors[actor.name]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8, "memory": 1e9}


def worker(ray: FakeRay, work: Path, *bases: Path, address: str = "here:1") -> RayWorker:
    return RayWorker(
        ray,
        argparse.Namespace(address=address, gpus=1.0, cores=4, work=work, base=list(bases)),
        ["--threads", "4"],
    )


def placement_error(worker: RayWorker) -> WorkerUnavailable:
    with pytest.raises(WorkerUnavailable) as refused:
        worker.place()
    return refused.value


def test_worker_is_placed_and_foreign_actors_are_kept(
    tmp_path: Path,
) -> None:
    ray = FakeRay()
    earlier = [f"{tmp_path / 'work'} 1", f"{tmp_path / 'work-of-another'} 2"]
    ray.actors = {name: {} for name in earlier}
    placed = worker(ray, tmp_path / "work", tmp_path)
    placed.place()
    (options,) = [
        actor_options for name, actor_options in ray.actors.items() if name not in earlier
    ]
    assert earlier[0] not in ray.actors
    assert earlier[1] in ray.actors
    assert (options["num_cpus"], options["num_gpus"]) == (4, 1)
    assert list((tmp_path / "work").iterdir()) == []


def test_failed_connection_is_retried(tmp_path: Path) -> None:
    ray = FakeRay()
    worker(ray, tmp_path, address="forking:1").place()
    assert (ray.tries, len(ray.actors)) == (2, 1)


def test_missing_folders_are_named_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = placement_error(worker(FakeRay(), tmp_path, tmp_path / "base"))
    assert error.permanent
    assert f"does not see {tmp_path / 'base'}: mount the volumes" in str(error)

    def missing_on_other_disk(
        self: RayTrainingProcess, probe: Path, bases: list[Path]
    ) -> list[str]:
        """Reply like a machine with a disk of its own under the same path."""
        return []

    monkeypatch.setattr(RayTrainingProcess, "missing", missing_on_other_disk)
    error = placement_error(worker(FakeRay(), tmp_path))
    assert error.permanent
    assert f"{tmp_path} (it has a different folder of that name)" in str(error)


def test_probe_is_answered_if_the_folder_exists(tmp_path: Path) -> None:
    assert RayTrainingProcess().missing(tmp_path, []) == []
    assert (tmp_path / PROBE_REPLY).read_text()
    assert RayTrainingProcess().missing(tmp_path / "work" / "probe", []) == [
        f"{tmp_path / 'work'} (No such file or directory)"
    ]


@pytest.mark.parametrize(
    ("failure", "address", "permanent", "message"),
    [
        (None, "nowhere:1", False, "the Ray cluster at nowhere:1 cannot be reached: no answer"),
        (None, "older:1", True, "Version mismatch"),
        (
            GetTimeoutError(),
            "here:1",
            False,
            "1 GPUs was not free within 200 s; the whole cluster has {'CPU': 8, 'GPU': 0}",
        ),
        (
            RuntimeError("ModuleNotFoundError: No module named 'services'"),
            "here:1",
            True,
            "it needs the trainer's image",
        ),
        (RuntimeError("the node was lost"), "here:1", False, "could not be started"),
    ],
)
def test_placement_errors_say_whether_they_are_permanent(
    failure: Exception | None, address: str, permanent: bool, message: str, tmp_path: Path
) -> None:
    error = placement_error(worker(FakeRay(failure), tmp_path, address=address))
    assert message in str(error)
    assert "\n" not in str(error)
    assert error.permanent is permanent


@pytest.mark.parametrize(
    ("status", "expected"), [(71, 71), (-9, -signal.SIGKILL), (-11, -signal.SIGSEGV)]
)
def test_relay_exits_like_its_training_process(status: int, expected: int) -> None:
    code = f"from services.trainer.worker.ray_relay import _exit_like; _exit_like({status})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == expected


UNREACHABLE = """
def init(*_, **__):
    raise ConnectionError("no answer")
def shutdown(): ...
"""


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        ("raise ModuleNotFoundError", Misconfigured, r"pip install '\.\[ray\]'"),
        (UNREACHABLE, Unavailable, "the Ray cluster at auto cannot be reached: no answer"),
    ],
    ids=["not installed", "unreachable"],
)
async def test_permanent_errors_stop_and_others_are_retried(
    module: str,
    error: type[RatchetError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "ray.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = TrainingProcess(
        0, structlog.stdlib.get_logger(), launch=ray_launch("auto", 0, 0, tmp_path, [])
    )
    with pytest.raises(error, match=message):
        await process.request(Load(base=tmp_path, precision="fp32"), Loaded)


@pytest.mark.parametrize("address", ["ray://ratchet-head-svc:10001", "10.0.0.1:6379", "auto"])
def test_ray_address_is_validated(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_RAY_ADDRESS", address)
    settings = read_settings(TrainerSettings)
    assert (settings.ray_address, settings.ray_gpus) == (address, 1)
    monkeypatch.setenv("RATCHET_RAY_ADDRESS", f"http://{address}")
    with pytest.raises(SettingsError, match="RATCHET_RAY_ADDRESS"):
        read_settings(TrainerSettings)
