"""Whether a cluster takes a training process, and what is said when it does not; the cluster is a
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
    """A cluster within this process. `failure` is raised by the first question to an actor."""

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
        child = RayTrainingProcess()
        child.start = lambda *_: None  # type: ignore[method-assign]  # no process
        methods = {
            name: SimpleNamespace(remote=self._asked(getattr(child, name)))
            for name in ("missing", "start")
        }
        return SimpleNamespace(name=options["name"], **methods)

    def _asked(self, method: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
        return lambda *arguments: lambda: method(*arguments)

    def get(self, asked: Callable[[], Any], timeout: float | None = None) -> Any:
        assert timeout in (None, PLACEMENT_TIMEOUT_SECONDS)
        if self._failure:
            raise self._failure
        return asked()

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


def refusal(worker: RayWorker) -> WorkerUnavailable:
    with pytest.raises(WorkerUnavailable) as refused:
        worker.place()
    return refused.value


def test_a_worker_that_sees_the_folders_is_taken_and_what_is_of_others_left_alone(
    tmp_path: Path,
) -> None:
    ray = FakeRay()
    earlier = [f"{tmp_path / 'work'} 1", f"{tmp_path / 'work-of-another'} 2"]
    ray.actors = {name: {} for name in earlier}
    placed = worker(ray, tmp_path / "work", tmp_path)
    placed.place()
    (options,) = [found for name, found in ray.actors.items() if name not in earlier]
    assert earlier[0] not in ray.actors
    assert earlier[1] in ray.actors
    assert (options["num_cpus"], options["num_gpus"]) == (4, 1)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_head_that_fails_once_is_asked_again(tmp_path: Path) -> None:
    ray = FakeRay()
    worker(ray, tmp_path, address="forking:1").place()
    assert (ray.tries, len(ray.actors)) == (2, 1)


def test_folders_that_a_worker_does_not_see_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refusal(worker(FakeRay(), tmp_path, tmp_path / "base"))
    assert told.permanent
    assert f"does not see {tmp_path / 'base'}: mount the volumes" in str(told)

    def elsewhere(self: RayTrainingProcess, probe: Path, bases: list[Path]) -> list[str]:
        """On a machine with a disk of its own under the same path."""
        return []

    monkeypatch.setattr(RayTrainingProcess, "missing", elsewhere)
    told = refusal(worker(FakeRay(), tmp_path))
    assert told.permanent
    assert f"{tmp_path} (it has another folder of that name)" in str(told)


def test_a_probe_is_answered_where_it_can_be(tmp_path: Path) -> None:
    assert RayTrainingProcess().missing(tmp_path, []) == []
    assert (tmp_path / PROBE_REPLY).read_text()
    assert RayTrainingProcess().missing(tmp_path / "work" / "probe", []) == [
        f"{tmp_path / 'work'} (No such file or directory)"
    ]


@pytest.mark.parametrize(
    ("failure", "address", "lasting", "said"),
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
def test_what_is_in_the_way_is_said_and_whether_it_passes(
    failure: Exception | None, address: str, lasting: bool, said: str, tmp_path: Path
) -> None:
    told = refusal(worker(FakeRay(failure), tmp_path, address=address))
    assert said in str(told)
    assert "\n" not in str(told)
    assert told.permanent is lasting


@pytest.mark.parametrize(
    ("status", "ended"), [(71, 71), (-9, -signal.SIGKILL), (-11, -signal.SIGSEGV)]
)
def test_a_relay_ends_as_its_training_process(status: int, ended: int) -> None:
    code = f"from services.trainer.worker.ray_relay import _end_as; _end_as({status})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == ended


AWAY = """
def init(*_, **__):
    raise ConnectionError("no answer")
def shutdown(): ...
"""


@pytest.mark.parametrize(
    ("module", "error", "said"),
    [
        ("raise ModuleNotFoundError", Misconfigured, r"pip install 'ratchet\[ray\]'"),
        (AWAY, Unavailable, "the Ray cluster at auto cannot be reached: no answer"),
    ],
    ids=["not installed", "away"],
)
async def test_the_trainer_stops_for_what_lasts_and_tries_again_what_passes(
    module: str,
    error: type[RatchetError],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "ray.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = TrainingProcess(
        0, structlog.stdlib.get_logger(), launch=ray_launch("auto", 0, 0, tmp_path, [])
    )
    with pytest.raises(error, match=said):
        await child.request(Load(base=tmp_path, precision="fp32"), Loaded)


@pytest.mark.parametrize("address", ["ray://ratchet-head-svc:10001", "10.0.0.1:6379", "auto"])
def test_an_address_is_one_that_ray_takes(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_RAY_ADDRESS", address)
    settings = read_settings(TrainerSettings)
    assert (settings.ray_address, settings.ray_gpus) == (address, 1)
    monkeypatch.setenv("RATCHET_RAY_ADDRESS", f"http://{address}")
    with pytest.raises(SettingsError, match="RATCHET_RAY_ADDRESS"):
        read_settings(TrainerSettings)
