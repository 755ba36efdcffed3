"""The demo from beginning to end: ask, judge, send; wait for the verdict; ask again. A round reads
from top to bottom.
"""

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


TICKETS_WITHOUT_PAUSE = (
    44  # tickets that cannot close a batch of 50 alone, with the few that wait from the one before
)
BATCH_CLOSE_SECONDS = 0.8  # seconds from feedback to the batch that it closes, and to spare
MAX_TICKETS = (
    400  # far more than a batch needs: beyond it something is wrong, and waiting would hide it
)


class DemoFailed(RatchetError):
    """The demo could not show what it is there to show."""


@dataclass
class DemoScenario:
    """Everything a run needs, and what it has learnt so far: the answers of each version to the
    unseen tickets.
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
        """Ask the served model every unseen ticket; the version that answered, and the share of
        exact answers.
        """
        self.view.show_activity(f"asking the served model {len(self.unseen)} unseen tickets")
        said = await self.application.ask_all(self.unseen)
        version = said[-1].version
        self.answers_by_version[version] = [answer.text for answer in said]
        return version, exact_share(self.unseen, said)

    async def good_round(self, number: int) -> RoundResult:
        """People judge answers honestly until a batch closes; then the verdict, the deployment, and
        the unseen tickets.
        """
        batch = await self._feed(
            number, honest_feedback, f"round {number + 1}: asking, judging, sending feedback"
        )
        self.view.show_activity(f"round {number + 1}: training on 50 examples")
        outcome, ended = await self._outcome(batch)
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
            ended = await self._until_answers(version)
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
                total=ended - self.application.sent_at[self.watcher.closing_event_id(batch)],
            ),
        )

    async def poisoned_round(self, number: int) -> PoisonedResult:
        """Strangers correct every answer, wrongly, until a batch closes; the version that is served
        must stay.
        """
        before = self._champion()
        batch = await self._feed(
            number, poisoned_feedback, "poison: strangers send wrong corrections"
        )
        self.view.show_activity("poison: training on it, to see what it would do")
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
        """An operator goes back to the newest version that answers otherwise, looks, and comes
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
                "no version that answers otherwise than the champion: nothing was promoted, "
                "see the verdicts above"
            )
        to = max(earlier, key=_number)
        self.view.show_activity(f"an operator rolls back to {to}")
        back = await self._move(to, "demo: looking at an earlier version")
        old = self.answers_by_version[to]
        _, exact = await self.ask_unseen()
        changed = self.answers_by_version[to] == old and old != self.answers_by_version[champion]
        self.view.add_row("rolled back", "", to, exact, back)
        self.view.show_activity(f"the operator comes forward to {champion} again")
        forward = await self._move(champion, "demo: forward again")
        _, exact = await self.ask_unseen()
        self.view.add_row("forward", "", champion, exact, forward)
        return RollbackResult(seconds=back, from_version=champion, to=to, answer_changed=changed)

    async def _feed(self, number: int, judge: RateAnswer, what: str) -> BatchReady:
        """Send feedback on fresh tickets until batch `number` is on the bus."""
        stream = f"demo-{self.seed}-{number}"
        self.view.show_activity(what)
        for start in range(0, MAX_TICKETS, CONCURRENT_REQUESTS):
            if start >= TICKETS_WITHOUT_PAUSE:
                # What closes the batch may be among what was sent last. Answers that nobody waits
                # for would be given while the batch is trained on, and on few cores both take many
                # times as long.
                await asyncio.sleep(BATCH_CLOSE_SECONDS)
            if self.watcher.has_event(BatchReady, lambda event: event.number == number):
                break
            numbers = range(start, start + CONCURRENT_REQUESTS)
            tickets = [make_ticket(stream, index) for index in numbers]
            said = await self.application.ask_all(tickets)
            for index, asked, answer in zip(numbers, tickets, said, strict=True):
                await self.application.send(
                    judge(asked, answer.text, answer.version, stream, index, self.clock.now())
                )
            self.view.show_progress("feedback", start + CONCURRENT_REQUESTS, 60)
        batch, _ = await self.watcher.wait_for(
            BatchReady, lambda event: event.number == number, seconds=120
        )
        return batch

    async def _outcome(
        self, batch: BatchReady
    ) -> tuple[CheckpointSaved | TrainingRolledBack, float]:
        """What came of a batch, and when that was known."""
        outcome, at = await self.watcher.wait_for(
            (CheckpointSaved, TrainingRolledBack), lambda event: event.batch_id == batch.batch_id
        )
        assert isinstance(outcome, CheckpointSaved | TrainingRolledBack)
        return outcome, at

    async def _until_answers(self, version: str) -> float:
        """The moment at which `version` answers the application."""
        while True:
            answer: ServedAnswer = await self.application.ask(self.unseen[0].messages)
            if answer.version == version:
                return self.clock.monotonic()
            await asyncio.sleep(0.1)

    async def _move(self, to: str, reason: str) -> float:
        """Have the operator move the champion; the seconds until `to` answers."""
        start = self.clock.monotonic()
        await asyncio.to_thread(
            self.registry.post, "/api/models/support/rollback", {"to": to, "reason": reason}
        )
        return await self._until_answers(to) - start

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
