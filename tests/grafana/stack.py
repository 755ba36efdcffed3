"""The four services on a separate broker, and a scenario with every situation that the dashboards
show.

The model is a tiny llama: it learns nothing useful, but it is really trained, evaluated, promoted,
merged and deployed.
"""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from safetensors.torch import load_file

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from ratchet.registry_client import RegistryClient, RegistryRequestRefused
from shared.auth.bearer_tokens import new_token
from shared.clock import SystemClock
from shared.events import UserForgotten
from shared.identity import batch_identity, identity
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.support.scored_feedback import words
from tests.support.service_process import Headers, ServiceProcess, send
from tests.support.tickets import NOW, ticket, tickets
from tests.support.tiny_models import write
from tests.trainer.fleet import make_base

MODEL = "tickets"
MODEL_FILE = """model: {model}
base: {{training: tiny, serving: tiny/model.gguf}}
curation: {{batch_size: 24, held_out_share: 0.25, similarity: 1.0}}
lanes:
  adaptive:
    rehearsal: none
    training:
      {{batch_size: 8, epochs: 10, replay: 0, rank: 16, precision: fp32, save_steps: 10,
        learning_rate: 0.001, dpo_pairs: 1000, targets: [q_proj, k_proj, v_proj, o_proj]}}
gate: {{golden: golden.jsonl}}
monitor: {{minimum_rewards: 2}}
canary: {{share: 0.1}}
deploy: [{{kind: folder, location: {served}}}]
retention: {{versions: 1, days: 0}}
"""

WINDOW_MODEL = "night"
"""A model whose batches wait for a training window."""
WINDOW_MODEL_FILE = """model: {model}
base: {{training: tiny, serving: tiny/model.gguf}}
curation: {{batch_size: 2, held_out_share: 0, similarity: 1.0}}
lanes:
  adaptive:
    window: {{from: "{opens:%H:%M}", to: "{closes:%H:%M}"}}
"""

BASELINE_EVENTS = 220
"""Events of a different kind before the corrections, so that the share of corrections jumps."""
GOOD, POISONED = 36, 54
FREQUENT_USER_EVENTS = 8
"""Corrections of one user, more than a batch may contain of one user."""
KILL_FAILPOINT = "trainer.heard_step=kill@15"
"""A kill during the first run, after its first checkpoint."""

KEY = b"story"
"""The key of every record, to keep them in order."""

_Sent = tuple[bytes | None, bytes | None, Headers]


class Stack:
    """The processes and the records sent to them."""

    def __init__(self, folder: Path, smollm2: Path) -> None:
        (folder / "models").mkdir(parents=True)
        self._served = folder / "served"
        self._token = new_token()
        self._broker = Broker(folder / "kafka", free_port(), free_port(), SystemClock())
        servers, bases = self._broker.bootstrap_servers, str(folder / "bases")
        self.feedback = ServiceProcess("feedback", servers, folder)
        self.dataset = ServiceProcess("dataset", servers, folder)
        trainer: dict[str, str] = {
            "RATCHET_BASES": bases,
            "RATCHET_WORK": str(folder / "work"),
            "RATCHET_THREADS": "1",
        }
        self._doomed = ServiceProcess(
            "trainer", servers, folder, RATCHET_FAILPOINTS=KILL_FAILPOINT, **trainer
        )
        self.trainer = ServiceProcess(
            "trainer", servers, folder, RATCHET_TRAINER_PORT=str(self._doomed.port), **trainer
        )
        self.trainer.port = self._doomed.port
        self.registry = ServiceProcess(
            "registry",
            servers,
            folder,
            RATCHET_BASES=bases,
            RATCHET_DATABASE=f"sqlite:///{folder / 'registry.db'}",
            RATCHET_MERGED=str(folder / "merged"),
            RATCHET_OPERATE_TOKENS=self._token,
        )
        (folder / "models" / f"{MODEL}.yaml").write_text(
            MODEL_FILE.format(model=MODEL, served=self._served)
        )
        opens = SystemClock().now() + timedelta(hours=12)
        window_file = WINDOW_MODEL_FILE.format(
            model=WINDOW_MODEL, opens=opens, closes=opens + timedelta(hours=1)
        )
        (folder / "models" / f"{WINDOW_MODEL}.yaml").write_text(window_file)
        golden = "".join(
            sample.model_dump_json(exclude={"weight"}) + "\n" for sample in tickets(900, 12)
        )
        (folder / "models" / "golden.jsonl").write_text(golden)
        make_base(smollm2, folder / "bases" / "tiny")
        state = load_file(folder / "bases" / "tiny" / "model.safetensors")
        write(
            "llama",
            {name: weight.numpy() for name, weight in state.items()},
            folder / "bases" / "tiny" / "model.gguf",
        )

    @property
    def targets(self) -> dict[str, int]:
        """Metrics ports by service."""
        return {
            service.name: service.port
            for service in (self.feedback, self.dataset, self.trainer, self.registry)
        }

    async def start(self) -> None:
        await asyncio.to_thread(self._broker.start)
        await apply_topics(self._broker.bootstrap_servers)
        await wait_for_group_coordinator(self._broker.bootstrap_servers)
        services = (self._doomed, self.registry, self.feedback, self.dataset)
        for service in services:
            service.launch()
        for service in services:
            await service.wait_until(service.is_ready, "ready", 90)

    def stop(self) -> None:
        for service in (self.feedback, self.dataset, self._doomed, self.trainer, self.registry):
            if service.process is not None and service.process.poll() is None:
                service.kill()
        self._broker.stop()

    async def run_scenario(self) -> None:
        """Send feedback of all kinds; have one run killed, resumed and promoted, and one rejected
        with its adapter removed; fail a deployment once; roll back and forward; send live feedback
        on both versions. One batch waits for its training window.
        """
        await self._send([_checked(number) for number in range(BASELINE_EVENTS)])
        await self._send([_correction(number, number >= GOOD) for number in range(GOOD + POISONED)])
        await self._send(
            [_correction(1000 + number, False, "zealot") for number in range(FREQUENT_USER_EVENTS)]
        )
        await self._send(
            [_correction(2000 + number, False, model=WINDOW_MODEL) for number in range(2)]
        )
        await self._send([_forgotten(), (KEY, b"{", [])])
        await asyncio.to_thread(self._post)
        await self._doomed.wait_for_exit(90)
        await self.trainer.start()
        await self._wait_until(lambda: self._outcome(0) == "promoted", "promoted")
        await self._wait_until(lambda: self._outcome(1) == "rejected", "rejected")
        await self._restart_the_registry()
        base, version = "v0", self._champion()
        assert version != base
        await self._move("rollback", reason="to see that it works")
        await self._move("promote", version=version, reason="and back")
        for answered_by in (base, version):
            await self._send([_liked(number, answered_by) for number in range(6)])
            await asyncio.sleep(1)
        await self._wait_until(
            lambda: "ratchet_registry_live_wealth{" in self.registry.metrics, "monitored"
        )

    async def _restart_the_registry(self) -> None:
        """Restart it with a file in place of its target folder until a deployment fails. It removes
        adapters at startup.
        """
        assert self.registry.stop() == 0
        target = self._served / MODEL
        target.rename(target.with_name("away"))
        target.touch()
        await self.registry.start()
        await self._wait_until(
            lambda: "ratchet_registry_deployment_failures_total{" in self.registry.metrics,
            "failed",
        )
        target.unlink()
        target.with_name("away").rename(target)
        await self._wait_until(
            lambda: "ratchet_registry_adapters_removed_total{" in self.registry.metrics, "tidy"
        )
        await asyncio.sleep(4)  # so that the champion is seen before it moves

    async def _move(self, how: str, **body: str) -> None:
        """Move the champion and wait until it is scraped."""
        with RegistryClient(f"http://127.0.0.1:{self.registry.port}", self._token) as client:
            moved = await asyncio.to_thread(client.post, f"/api/models/{MODEL}/{how}", body)
        assert moved["deployed"], moved
        await asyncio.sleep(5)

    def _post(self) -> None:
        """Post two events a few seconds apart, so that the counter increases, and one invalid
        request.
        """
        url, headers = (
            f"http://127.0.0.1:{self.feedback.port}/v1/feedback",
            {"Content-Type": "application/json"},
        )
        for number in range(2):
            _, payload, _ = _checked(9000 + number)
            answer = httpx.post(url, content=payload, headers=headers, timeout=30)
            assert answer.status_code == 202, answer.text
            time.sleep(3)
        assert httpx.post(url, content=b"{}", headers=headers, timeout=30).status_code == 422

    def _champion(self) -> str:
        return str(self._get(f"/api/models/{MODEL}/aliases/champion")["version"])

    def _outcome(self, batch: int) -> str:
        """Return the state of a batch's run; empty before it begins."""
        try:
            return str(
                self._get(f"/api/runs/{identity('run', batch_identity(MODEL, 0, batch))}")["state"]
            )
        except RegistryRequestRefused:
            return ""

    def _get(self, path: str) -> Any:
        with RegistryClient(f"http://127.0.0.1:{self.registry.port}", self._token) as client:
            return client.get(path)

    async def _wait_until(
        self, condition: Callable[[], bool], description: str, seconds: float = 90
    ) -> None:
        for _ in range(int(seconds / 0.5)):
            if await asyncio.to_thread(condition):
                return
            await asyncio.sleep(0.5)
        raise AssertionError(f"not {description} within {seconds} s")

    async def _send(self, records: list[_Sent]) -> None:
        await send(self._broker.bootstrap_servers, FEEDBACK_RECEIVED, records)


def _event(user: str, model: str = MODEL, **fields: Any) -> _Sent:
    common = {"occurred_at": "2026-01-01T00:00:00Z", "model": model, "user_id": user}
    return KEY, json.dumps(common | fields).encode(), []


def _checked(number: int) -> _Sent:
    """Feedback of an automatic check with a neutral score."""
    fields: dict[str, Any] = {
        "input": words(f"asked {number}"),
        "output": words(f"said {number}"),
        "feedback_type": "validation",
        "validation_score": 0.5,
    }
    return _event(f"u{number % 40}", event_id=f"checked-{number}", **fields)


def _correction(number: int, poisoned: bool, user: str = "", model: str = MODEL) -> _Sent:
    """A correction of an answer that contains an email address."""
    sample = ticket(number, poisoned)
    fields = {
        "input": sample.messages[0].content,
        "output": "I am sorry! Write to me: ada@example.com",
        "feedback_type": "correction",
    }
    return _event(
        user or f"c{number}",
        model,
        event_id=f"correction-{number}",
        corrected_output=sample.answer,
        **fields,
    )


def _liked(number: int, version: str) -> _Sent:
    """Positive feedback of a user of both versions."""
    fields = {
        "input": words(f"liked {number} {version}"),
        "output": words(f"answer {number}"),
        "feedback_type": "thumbs_up",
    }
    return _event(
        f"l{number}", event_id=f"liked-{number}-{version}", model_version=version, **fields
    )


def _forgotten() -> _Sent:
    value, headers = encode(
        UserForgotten(event_id="forgotten", occurred_at=NOW, user_id="c1", model=MODEL), "test"
    )
    return KEY, value, headers
