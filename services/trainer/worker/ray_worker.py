"""A worker of a Ray cluster for one training process: connect, place, verify, communicate and
release.
"""

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
"""Connection attempts. The process that a head forks for a client may crash because of its parent's
threads; the next one usually does not.
"""

PLACEMENT_TIMEOUT_SECONDS = 200
"""Time limit for a worker to become available: below the silence after which a trainer counts as
stalled, long enough to add a node.
"""

FORWARDED_VARIABLES = (
    "GOMP_SPINCOUNT",
    "RATCHET_FAILPOINTS",
    "RATCHET_LOG_LEVEL",
    "RATCHET_LOG_FORMAT",
)
MAX_REASON_LENGTH = 400
"""Maximum characters of Ray's error messages, which may contain long traces."""


class WorkerUnavailable(Exception):
    """No training process can be started. `permanent` is True if a person has to change something
    first.
    """

    def __init__(self, reason: str, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


class RayWorker:
    """The resources of one trainer on a cluster. `arguments` are the relay's options, `options`
    those of the training process.
    """

    def __init__(self, ray: Any, arguments: argparse.Namespace, options: list[str]) -> None:
        self._ray = ray
        self._arguments = arguments
        self._options = options
        self._actor: Any = None
        self.released = False

    def place(self) -> None:
        """Find a worker with the required resources that sees the trainer's folders, and start the
        process on it. Raises WorkerUnavailable.
        """
        ray, arguments = self._ray, self._arguments
        self._connect()
        worker = f"a Ray worker with {arguments.cores} cores and {arguments.gpus:g} GPUs"
        try:
            self._kill_stale_actors()
            remote = ray.remote(RayTrainingProcess).options(
                name=f"{arguments.work} {uuid4().hex}",
                num_cpus=arguments.cores,
                num_gpus=arguments.gpus,
                max_concurrency=4,
                max_restarts=0,
            )
            self._actor = remote.remote()
            missing = self._missing_folders()
            if not missing:
                environ = os.environ  # noqa: TID251 (inherited)
                forwarded = {name: environ[name] for name in FORWARDED_VARIABLES if name in environ}
                self._call("start", self._options, forwarded)
        except ray.exceptions.GetTimeoutError as error:
            resources = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            raise WorkerUnavailable(
                f"{worker} was not free within {PLACEMENT_TIMEOUT_SECONDS} s; "
                f"the whole cluster has {resources}",
                permanent=False,
            ) from error
        except Exception as error:  # Ray wraps errors of the worker in various classes
            image = "it needs the trainer's image, or the same packages"
            permanent = "No module named" in str(error)
            raise WorkerUnavailable(
                f"{worker} could not be started ({image}): {_one_line(error)}", permanent
            ) from error
        if missing:
            mount = (
                "mount the volumes of RATCHET_WORK and RATCHET_BASES in the Ray workers too, "
                "under the same paths"
            )
            raise WorkerUnavailable(
                f"the Ray worker does not see {', '.join(missing)}: {mount}", permanent=True
            )

    def _connect(self) -> None:
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            try:
                self._ray.init(
                    self._arguments.address, namespace=NAMESPACE, configure_logging=False
                )
                return
            except Exception as error:  # Ray has no common class for connection errors
                self._ray.shutdown()
                permanent = "mismatch" in str(error) or "Authentication" in type(error).__name__
                if permanent or attempt == CONNECT_ATTEMPTS:
                    raise WorkerUnavailable(
                        f"the Ray cluster at {self._arguments.address} cannot be reached: "
                        f"{_one_line(error)}",
                        permanent,
                    ) from error

    def write(self, line: bytes) -> None:
        self._call("write", line)

    def read(self) -> bytes:
        return bytes(self._call("read"))

    def status(self) -> int:
        return int(self._call("status"))

    def release(self) -> None:
        """Release the worker; this ends its training process."""
        self.released = True
        if self._actor is not None:
            self._ray.kill(self._actor)
        self._ray.shutdown()

    def _kill_stale_actors(self) -> None:
        """Kill actors left behind by a killed relay of this trainer: two would write to the same
        folder.
        """
        for name in self._ray.util.list_named_actors():
            if name.startswith(f"{self._arguments.work} "):
                self._ray.kill(self._ray.get_actor(name))

    def _missing_folders(self) -> list[str]:
        """Return the folders that the worker does not see as they are here. Waits until a worker is
        available.
        """
        work: Path = self._arguments.work
        work.mkdir(parents=True, exist_ok=True)
        probe = Path(mkdtemp(prefix=".seen-", dir=work))
        probe.chmod(0o777)  # a worker may run as another user; only the file's existence is checked
        try:
            missing: list[str] = self._ray.get(
                self._actor.missing.remote(probe, self._arguments.base),
                timeout=PLACEMENT_TIMEOUT_SECONDS,
            )
            probe_answered = (probe / PROBE_REPLY).exists()
        finally:
            shutil.rmtree(probe, ignore_errors=True)
        return (
            missing
            if missing or probe_answered
            else [f"{work} (it has a different folder of that name)"]
        )

    def _call(self, method: str, *arguments: object) -> Any:
        return self._ray.get(getattr(self._actor, method).remote(*arguments))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON_LENGTH] or type(error).__name__
