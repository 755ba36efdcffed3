"""Records sent by producers of other languages."""

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KeyedValue = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Producers:
    """kcat (librdkafka) and a program with franz-go; `send` raises AssertionError if one fails."""

    bootstrap_servers: str
    kcat: str
    franz_go: Path

    async def send(
        self, client: str, topic: str, records: Sequence[KeyedValue], codec: str = ""
    ) -> None:
        """Send records, in one batch, compressed with `codec`; by default as the client does."""
        command = {
            "librdkafka": [
                *(self.kcat, "-P", "-b", self.bootstrap_servers, "-t", topic, "-K", "|"),
                *("-X", "acks=all", "-X", "linger.ms=50", *(("-z", codec) if codec else ())),
            ],
            "franz-go": [str(self.franz_go), self.bootstrap_servers, topic, codec or "default"],
        }[client]
        lines = "".join(f"{key}|{value}\n" for key, value in records)
        await asyncio.to_thread(self._run, command, lines)

    def _run(self, command: Sequence[str], lines: str) -> None:
        process = subprocess.run(
            command, input=lines, capture_output=True, text=True, timeout=60, check=False
        )
        assert process.returncode == 0, process.stderr
