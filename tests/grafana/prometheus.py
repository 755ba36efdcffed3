"""A real Prometheus that scrapes what a test started, and what Grafana would ask it."""

import math
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from ratchet.local_stack.ports import free_port

Series = Mapping[str, Any]
"""One series of an answer: `metric` has its labels, `values` its samples."""

NAMESPACE = "here"
STEP = 2
"""Seconds, of every query over time."""

_SECONDS = {"$__rate_interval": "8s", "$__interval": f"{STEP}s"}
_LABEL_VALUES = re.compile(r"label_values\((?P<of>.+), (?P<label>\w+)\)")


class Prometheus:
    """Prometheus itself, as a process; it scrapes every second, and gives each target a namespace,
    as a cluster does.
    """

    def __init__(self, program: str, folder: Path, targets: Mapping[str, int]) -> None:
        """`targets` are ports on this machine, by service."""
        folder.mkdir()
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        labelled = [
            {
                "targets": [f"127.0.0.1:{target}"],
                "labels": {"service": service, "namespace": NAMESPACE},
            }
            for service, target in targets.items()
        ]
        intervals = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        jobs = [{"job_name": "ratchet", "static_configs": labelled}]
        (folder / "prometheus.yaml").write_text(
            yaml.safe_dump({"global": intervals, "scrape_configs": jobs})
        )
        self._command = [
            program,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._log = folder / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        self._began = time.time()
        for _ in range(300):
            assert self._process.poll() is None, self._log.read_text()
            try:
                if httpx.get(f"{self._url}/-/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def now(self, query: str) -> list[Series]:
        """The series of a query at this moment, with one sample each."""
        found = self._ask("query", {"query": self._timed(query)})["result"]
        return [{"metric": series["metric"], "values": [series["value"]]} for series in found]

    def over_time(self, query: str) -> list[Series]:
        """The series of a query since this Prometheus started."""
        asked = {
            "query": self._timed(query),
            "start": str(self._began),
            "end": str(time.time()),
            "step": str(STEP),
        }
        found: list[Series] = self._ask("query_range", asked)["result"]
        return found

    def label_values(self, query: str) -> list[str]:
        """What Grafana makes of `label_values(series, label)`."""
        asked = _LABEL_VALUES.fullmatch(query)
        assert asked, query
        found: list[str] = self._ask(f"label/{asked['label']}/values", {"match[]": asked["of"]})
        return found

    def _timed(self, query: str) -> str:
        for name, seconds in {
            **_SECONDS,
            "$__range": f"{int(time.time() - self._began) + 1}s",
        }.items():
            query = query.replace(name, seconds)
        return query

    def _ask(self, path: str, asked: Mapping[str, str]) -> Any:
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=dict(asked), timeout=30)
        assert answer.is_success, f"{asked}\n{answer.text}"
        return answer.json()["data"]


def has_data(found: list[Series]) -> bool:
    """Whether there is a sample that is a number."""
    return any(math.isfinite(float(value)) for series in found for _, value in series["values"])
