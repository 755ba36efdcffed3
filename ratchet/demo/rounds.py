"""The steps of the demo: query the model, send feedback, wait for the verdict, query again."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from ratchet.demo.application import CONCURRENT_REQUESTS, DemoApplication, ServedAnswer, exact_share
from ratchet.demo.event_watcher import EventWatcher
from ratchet.demo.report import PoisonedResult, RollbackResult, RoundResult, RoundSeconds
from ratchet.demo.simulated_users import honest_feedback, poisoned_feedback
from ratchet.demo.tickets import Ticket, make_ticket
from ratchet.demo.view import DemoView
from ratchet.registry_client import RegistryClient
from shared.clock import Clock
from shared.errors import RatchetError
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Comparison,
    FeedbackReceived,
    TrainingRolledBack,
    VersionDeployed,
    VersionRegistered,
)

RateAnswer = Callable[[Ticket, str, str, str, int, datetime], FeedbackReceived]


TICKETS_WITHOUT_PAUSE = 44
"""These cannot close a batch of 50, even with the pending examples of the previous one."""
BATCH_CLOSE_SECONDS = 0.8
"""More than the time from feedback to the batch that it closes."""
MAX_TICKETS = 400
"""Far more than a batch needs; without a batch by then, something is wrong."""


class DemoFailed(RatchetError):
    """The demo cannot continue, because an expected result is missing."""


@dataclass
class DemoScenario:
    """The steps of one demo. `answers_by_version` collects each version's answers to the unseen
    tickets.
    """

    application: DemoApplication
    watcher: EventWatcher
    registry: RegistryClient
    view: DemoView
    clock: Clock
    unseen: list[Ticket]
    seed: int
    answers_by_version: dict[str, list[str]] = field(default_factory=dict)

    async def ask_unseen(self) -> tuple[str, float]:
        """Send every unseen ticket to the served model; return its version and the share of exact
        answers.
        """
        self.view.show_activity(f"asking the served model {len(self.unseen)} unseen tickets")
        answers = await self.application.ask_all(self.unseen)
        version = answers[-1].version
        self.answers_by_version[version] = [answer.text for answer in answers]
        return version, exact_share(self.unseen, answers)

    async def good_round(self, number: int) -> RoundResult:
        """Send honest feedback until a batch closes; wait for the verdict and the deployment; query
        the unseen tickets.
        """
        batch = await self._feed(
            number, honest_feedback, f"round {number + 1}: sending honest feedback"
        )
        self.view.show_activity(f"round {number + 1}: training on 50 examples")
        outcome, end = await self._outcome(batch)
        version, deploy = None, 0.0
        if isinstance(outcome, CheckpointSaved):
            registered, _ = await self.watcher.wait_for(
                VersionRegistered,
                lambda event: event.run_id == outcome.run_id and event.answer == "promoted",
            )
            version = registered.version
            self.view.show_activity(f"round {number + 1}: deploying {version}")
            deployed, _ = await self.watcher.wait_for(
                VersionDeployed, lambda event: event.version == version
            )
            deploy = deployed.seconds
            end = await self._until_served(version)
        _, exact = await self.ask_unseen()
        before, after = _held_out(outcome)
        metrics = outcome.metrics
        return RoundResult(
            batch_id=batch.batch_id,
            version=version,
            verdict=_verdict(outcome),
            heldout_before=before,
            heldout_after=after,
            exact=exact,
            seconds=RoundSeconds(
                train=metrics.train_seconds if metrics else 0,
                evaluate=metrics.evaluate_seconds if metrics else 0,
                deploy=deploy,
                total=end - self.application.sent_at[self.watcher.closing_event_id(batch)],
            ),
        )

    async def poisoned_round(self, number: int) -> PoisonedResult:
        """Send wrong corrections of every answer until a batch closes; the served version must not
        change.
        """
        before = self._champion()
        batch = await self._feed(
            number, poisoned_feedback, "poison: an attacker sends wrong corrections"
        )
        self.view.show_activity("poison: training on the poisoned batch")
        outcome, _ = await self._outcome(batch)
        version, exact = await self.ask_unseen()
        self.view.add_row("poison", _verdict(outcome), version, exact)
        reasons = outcome.verdict.reasons if outcome.verdict else (_reason(outcome),)
        return PoisonedResult(
            batch_id=batch.batch_id,
            verdict=_verdict(outcome),
            reasons=reasons,
            champion_before=before,
            champion_after=self._champion(),
            exact_after=exact,
        )

    async def roll_back_and_forward(self) -> RollbackResult:
        """As an operator, roll back to the newest version with different answers, query it, and go
        forward again.
        """
        champion = self._champion()
        earlier = [
            version
            for version in self.answers_by_version
            if version != champion
            and self.answers_by_version[version] != self.answers_by_version[champion]
        ]
        if not earlier:
            raise DemoFailed(
                "no version answers differently from the champion: nothing was promoted, see "
                "the verdicts above"
            )
        to = max(earlier, key=_number)
        self.view.show_activity(f"rolling back to {to}")
        back = await self._move(to, "demo: query an earlier version")
        earlier_answers = self.answers_by_version[to]
        _, exact = await self.ask_unseen()
        changed = (
            self.answers_by_version[to] == earlier_answers
            and earlier_answers != self.answers_by_version[champion]
        )
        self.view.add_row("rolled back", "", to, exact, back)
        self.view.show_activity(f"going forward to {champion} again")
        forward = await self._move(champion, "demo: forward again")
        _, exact = await self.ask_unseen()
        self.view.add_row("forward", "", champion, exact, forward)
        return RollbackResult(seconds=back, from_version=champion, to=to, answer_changed=changed)

    async def _feed(self, number: int, rate: RateAnswer, activity: str) -> BatchReady:
        """Send feedback on new tickets until batch `number` is announced."""
        stream = f"demo-{self.seed}-{number}"
        self.view.show_activity(activity)
        for start in range(0, MAX_TICKETS, CONCURRENT_REQUESTS):
            if start >= TICKETS_WITHOUT_PAUSE:
                # The last feedback may have closed the batch. Unneeded requests would run while the
                # batch is trained, and on few cores both would take many times as long.
                await asyncio.sleep(BATCH_CLOSE_SECONDS)
            if self.watcher.has_event(BatchReady, lambda event: event.number == number):
                break
            numbers = range(start, start + CONCURRENT_REQUESTS)
            tickets = [make_ticket(stream, index) for index in numbers]
            answers = await self.application.ask_all(tickets)
            for index, sent, answer in zip(numbers, tickets, answers, strict=True):
                await self.application.send(
                    rate(sent, answer.text, answer.version, stream, index, self.clock.now())
                )
            self.view.show_progress("feedback", start + CONCURRENT_REQUESTS, 60)
        batch, _ = await self.watcher.wait_for(
            BatchReady, lambda event: event.number == number, seconds=120
        )
        return batch

    async def _outcome(
        self, batch: BatchReady
    ) -> tuple[CheckpointSaved | TrainingRolledBack, float]:
        """Wait for the outcome of a batch; return it with the monotonic time of its arrival."""
        outcome, at = await self.watcher.wait_for(
            (CheckpointSaved, TrainingRolledBack), lambda event: event.batch_id == batch.batch_id
        )
        assert isinstance(outcome, CheckpointSaved | TrainingRolledBack)
        return outcome, at

    async def _until_served(self, version: str) -> float:
        """Query until `version` answers; return the monotonic time."""
        while True:
            answer: ServedAnswer = await self.application.ask(self.unseen[0].messages)
            if answer.version == version:
                return self.clock.monotonic()
            await asyncio.sleep(0.1)

    async def _move(self, to: str, reason: str) -> float:
        """Move the champion as an operator; return the seconds until `to` answers."""
        start = self.clock.monotonic()
        await asyncio.to_thread(
            self.registry.post, "/api/models/support/rollback", {"to": to, "reason": reason}
        )
        return await self._until_served(to) - start

    def _champion(self) -> str:
        promoted = self.registry.get("/api/models/support/aliases/champion")
        version: str = promoted["version"]
        return version


def _verdict(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    return outcome.verdict.decision if outcome.verdict else "failed"


def _reason(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    return outcome.reason if isinstance(outcome, TrainingRolledBack) else ""


def _held_out(outcome: CheckpointSaved | TrainingRolledBack) -> tuple[float | None, float | None]:
    comparisons: tuple[Comparison, ...] = outcome.verdict.comparisons if outcome.verdict else ()
    return next(
        ((row.baseline, row.candidate) for row in comparisons if row.name == "held_out"),
        (None, None),
    )


def _number(version: str) -> int:
    return int(version[1:].split("_")[0])
