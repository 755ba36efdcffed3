"""A worker of a Ray cluster, taken for a training process: found, tried, spoken to and given back."""

import argparse
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

from services.trainer.worker.ray_actor import PROBE_REPLY, RayTrainingProcess

NAMESPACE = "ratchet"
CONNECT_ATTEMPTS = 3
"""How often to try: the process that a head forks for a client may die of the threads of its
parent, and another does not.
"""

PLACEMENT_TIMEOUT_SECONDS = 200
"""How long a worker may take to be there: less than the silence after which a trainer counts as
stalled, enough for a node to be added.
"""

FORWARDED_VARIABLES = (
    "GOMP_SPINCOUNT",
    "RATCHET_FAILPOINTS",
    "RATCHET_LOG_LEVEL",
    "RATCHET_LOG_FORMAT",
)
MAX_REASON_LENGTH = 400
"""Letters of what Ray says; its traces have no end."""


class WorkerUnavailable(Exception):
    """No training process comes of it. `lasting` where a person has to change something first."""

    def __init__(self, reason: str, lasting: bool) -> None:
        super().__init__(reason)
        self.permanent = lasting


class RayWorker:
    """What one trainer takes of a cluster. `told` are the relay's options, `options` those of the
    training process.
    """

    def __init__(self, ray: Any, arguments: argparse.Namespace, options: list[str]) -> None:
        self._ray = ray
        self._arguments = arguments
        self._options = options
        self._actor: Any = None
        self.released = False

    def place(self) -> None:
        """Find a machine that has what is asked for and sees the trainer's folders, and start the
        process on it. Raises Refusal.
        """
        ray, told = self._ray, self._arguments
        self._connect()
        wanted = f"a Ray worker with {told.cores} cores and {told.gpus:g} GPUs"
        try:
            self._kill_stale_actors()
            remote = ray.remote(RayTrainingProcess).options(
                name=f"{told.work} {uuid4().hex}",
                num_cpus=told.cores,
                num_gpus=told.gpus,
                max_concurrency=4,
                max_restarts=0,
            )
            self._actor = remote.remote()
            absent = self._missing_folders()
            if not absent:
                environ = os.environ  # noqa: TID251 (handed on)
                handed_on = {name: environ[name] for name in FORWARDED_VARIABLES if name in environ}
                self._call("start", self._options, handed_on)
        except ray.exceptions.GetTimeoutError as error:
            there = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            raise WorkerUnavailable(
                f"{wanted} was not free within {PLACEMENT_TIMEOUT_SECONDS} s; the whole cluster has {there}",
                lasting=False,
            ) from error
        except (
            Exception
        ) as error:  # what fails where the worker starts comes in whatever class Ray wraps it with
            image = "it needs the trainer's image, or what is installed in it"
            lasting = "No module named" in str(error)
            raise WorkerUnavailable(
                f"{wanted} could not be started ({image}): {_one_line(error)}", lasting
            ) from error
        if absent:
            mount = (
                "mount the volumes of RATCHET_WORK and RATCHET_BASES in the Ray workers too, "
                "under the same paths"
            )
            raise WorkerUnavailable(
                f"the Ray worker does not see {', '.join(absent)}: {mount}", lasting=True
            )

    def _connect(self) -> None:
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            try:
                self._ray.init(
                    self._arguments.address, namespace=NAMESPACE, configure_logging=False
                )
                return
            except Exception as error:  # Ray has no class of its own for what can be wrong here
                self._ray.shutdown()
                lasting = "mismatch" in str(error) or "Authentication" in type(error).__name__
                if lasting or attempt == CONNECT_ATTEMPTS:
                    raise WorkerUnavailable(
                        f"the Ray cluster at {self._arguments.address} cannot be reached: "
                        f"{_one_line(error)}",
                        lasting,
                    ) from error

    def write(self, line: bytes) -> None:
        self._call("write", line)

    def read(self) -> bytes:
        return bytes(self._call("read"))

    def status(self) -> int:
        return int(self._call("status"))

    def release(self) -> None:
        """Give the worker back; the training process on it ends with that."""
        self.released = True
        if self._actor is not None:
            self._ray.kill(self._actor)
        self._ray.shutdown()

    def _kill_stale_actors(self) -> None:
        """End what an earlier relay of this trainer has left, which was killed: two would write to
        the same folder.
        """
        for name in self._ray.util.list_named_actors():
            if name.startswith(f"{self._arguments.work} "):
                self._ray.kill(self._ray.get_actor(name))

    def _missing_folders(self) -> list[str]:
        """The folders that the worker does not see as they are here; waits for there to be a
        worker.
        """
        work: Path = self._arguments.work
        work.mkdir(parents=True, exist_ok=True)
        probe = Path(mkdtemp(prefix=".seen-", dir=work))
        probe.chmod(
            0o777
        )  # a worker may run as another user; what it writes there is only looked for
        try:
            absent: list[str] = self._ray.get(
                self._actor.missing.remote(probe, self._arguments.base),
                timeout=PLACEMENT_TIMEOUT_SECONDS,
            )
            seen = (probe / PROBE_REPLY).exists()
        finally:
            shutil.rmtree(probe, ignore_errors=True)
        return absent if absent or seen else [f"{work} (it has another folder of that name)"]

    def _call(self, method: str, *arguments: object) -> Any:
        return self._ray.get(getattr(self._actor, method).remote(*arguments))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON_LENGTH] or type(error).__name__
