"""One version in memory: a child process that runs llama.cpp's own HTTP server on one file.

Run as a module it is that child: it says its address on standard output and lives until its
standard input closes, so that it never outlives the host, however the host ends.
"""

import argparse
import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path

from shared.errors import InvalidArtefact


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How llama.cpp runs a file. `threads` 0 means all cores but one."""

    context: int
    slots: int
    threads: int


class Engine:
    """A running child. `address` is its base URL."""

    def __init__(self, process: Process, address: str) -> None:
        self._process = process
        self.address = address

    @classmethod
    async def start(cls, tag: str, path: str, options: EngineOptions, log: Path) -> "Engine":
        """Load a GGUF file and wait until it answers, calling itself `tag`.

        Raises Unusable, with the end of the child's log, when the file cannot be loaded.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ratchet.serving.engine", tag, path]
        command += [
            f"--context={options.context}",
            f"--slots={options.slots}",
            f"--threads={options.threads}",
        ]
        with log.open("wb") as errors:
            # A session of its own: Ctrl-C reaches the host alone, which lets answers under way
            # finish.
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=errors, start_new_session=True
            )
        assert process.stdout is not None
        try:
            said = await process.stdout.readline()
        except asyncio.CancelledError:
            process.kill()
            raise
        if not said:
            await process.wait()
            raise InvalidArtefact(
                f"llama.cpp could not load {path}: {await asyncio.to_thread(_end_of, log)}"
            )
        return cls(process, json.loads(said)["address"])

    async def wait(self) -> int:
        """Wait until the child is gone; its exit status."""
        return await self._process.wait()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    @property
    def process_id(self) -> int:
        return self._process.pid


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="ratchet.serving.engine")
    parser.add_argument("tag")
    parser.add_argument("path")
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.path
    params.model_alias = {options.tag}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    # llama.cpp's threads wait for each other by spinning: one that has to share its core, with a
    # training run say, slows all down ten-fold and more. So a core is left to others, and threads
    # that wait long enough sleep.
    threads = options.threads or max(1, (os.cpu_count() or 1) - 1)
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        cpu.poll = 0
    params.fit_params = False
    params.cache_ram_mib = 0
    params.ui = False
    params.endpoint_slots = False
    server = xllamacpp.Server(params)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
