"""A loaded version: a child process that runs llama.cpp's HTTP server on one GGUF file.

Run as a module, this is the child process. It prints its address to standard output and exits when
its standard input closes, so that it never outlives the host.
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
from shared.python_command import module_command


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of llama.cpp. `threads` 0 means all cores but one."""

    context: int
    slots: int
    threads: int


class Engine:
    """A running child process. `address` is its base URL."""

    def __init__(self, process: Process, address: str) -> None:
        self._process = process
        self.address = address

    @classmethod
    async def start(cls, tag: str, path: str, options: EngineOptions, log: Path) -> "Engine":
        """Load a GGUF file under the model name `tag` and wait until it answers.

        Raises InvalidArtefact, with the end of the child's log, if the file cannot be loaded.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = module_command(
            "ratchet.serving.engine",
            tag,
            path,
            f"--context={options.context}",
            f"--slots={options.slots}",
            f"--threads={options.threads}",
        )
        with log.open("wb") as errors:
            # In its own session, Ctrl-C reaches the host only, which lets active requests finish.
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=errors, start_new_session=True
            )
        assert process.stdout is not None
        try:
            first_line = await process.stdout.readline()
        except asyncio.CancelledError:
            process.kill()
            raise
        if not first_line:
            await process.wait()
            raise InvalidArtefact(
                f"llama.cpp could not load {path}: {await asyncio.to_thread(_log_tail, log)}"
            )
        return cls(process, json.loads(first_line)["address"])

    async def wait(self) -> int:
        """Wait until the child exits; return its exit status."""
        return await self._process.wait()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    @property
    def process_id(self) -> int:
        return self._process.pid


def _log_tail(log: Path) -> str:
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
    # llama.cpp's threads wait for each other by spinning: a thread that shares its core, for
    # example with a training run, slows all down tenfold or more. Therefore leave one core to
    # others, and let waiting threads sleep.
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
