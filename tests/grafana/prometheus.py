"""A real Prometheus that scrapes services under test, with the queries of Grafana."""

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
"""One series of a result: `metric` has its labels, `values` its samples."""

NAMESPACE = "here"
STEP = 2
"""Step of range queries, in seconds."""

_SECONDS = {"$__rate_interval": "8s", "$__interval": f"{STEP}s"}
_LABEL_VALUES = re.compile(r"label_values\((?P<of>.+), (?P<label>\w+)\)")


class Prometheus:
    """A Prometheus process that scrapes every second and gives each target a namespace, as in a
    cluster.
    """

    def __init__(self, program: str, folder: Path, targets: Mapping[str, int]) -> None:
        """Write the configuration. `targets` are local ports by service."""
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
        self._start_time = 0.0

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        self._start_time = time.time()
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

    def query_instant(self, query: str) -> list[Series]:
        """Return the series of an instant query, with one sample each."""
        result = self._request("query", {"query": self._fill_intervals(query)})["result"]
        return [{"metric": series["metric"], "values": [series["value"]]} for series in result]

    def query_range(self, query: str) -> list[Series]:
        """Return the series of a range query since this Prometheus started."""
        parameters = {
            "query": self._fill_intervals(query),
            "start": str(self._start_time),
            "end": str(time.time()),
            "step": str(STEP),
        }
        result: list[Series] = self._request("query_range", parameters)["result"]
        return result

    def label_values(self, query: str) -> list[str]:
        """Evaluate Grafana's `label_values(series, label)`."""
        match = _LABEL_VALUES.fullmatch(query)
        assert match, query
        values: list[str] = self._request(
            f"label/{match['label']}/values", {"match[]": match["of"]}
        )
        return values

    def _fill_intervals(self, query: str) -> str:
        for name, seconds in {
            **_SECONDS,
            "$__range": f"{int(time.time() - self._start_time) + 1}s",
        }.items():
            query = query.replace(name, seconds)
        return query

    def _request(self, path: str, parameters: Mapping[str, str]) -> Any:
        response = httpx.get(f"{self._url}/api/v1/{path}", params=dict(parameters), timeout=30)
        assert response.is_success, f"{parameters}\n{response.text}"
        return response.json()["data"]


def has_data(result: list[Series]) -> bool:
    """Return True if a sample is a finite number."""
    return any(math.isfinite(float(value)) for series in result for _, value in series["values"])
