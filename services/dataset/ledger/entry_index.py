"""What is known of events: their entries, the newest of each answer and of each user, and which of
them have grown old.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from services.dataset.ledger.entry_row import Card


class Known:
    """Entries by feedback id. Each operation but iteration costs the same however many there are."""

    def __init__(self) -> None:
        self._cards: dict[str, Card] = {}
        self._answers: dict[str, str] = {}
        self._users: dict[str, str] = {}
        self._aging: deque[str] = deque()
        self._aged: set[str] = set()
        self._changed: list[str] = []

    def __iter__(self) -> Iterator[Card]:
        return iter(self._cards.values())

    def __getitem__(self, name: str) -> Card:
        return self._cards[name]

    def get(self, name: str) -> Card | None:
        return self._cards.get(name)

    def of_answer(self, answer_id: str | None) -> Card | None:
        """The newest entry that says what an answer is worth."""
        return self._cards[self._answers[answer_id]] if answer_id in self._answers else None

    def of_user(self, influence: str) -> Card | None:
        """The newest entry of a user."""
        return self._cards[self._users[influence]] if influence in self._users else None

    def add(self, card: Card) -> None:
        """Entries are added in the order of the log."""
        name = card.feedback_id
        self._cards[name] = card
        self._aging.append(name)
        if card.answer_id and card.reason not in ("late", "corrected"):
            self._answers[card.answer_id] = name
        if card.influence:
            self._users[card.influence] = name

    def change(self, card: Card) -> None:
        """An entry that is known says something else now; of the same answer, and of the same user
        or of none.
        """
        name = card.feedback_id
        before = self._cards[name]
        self._cards[name] = card
        self._changed.append(name)
        if not card.influence:
            self._disown(before)

    def lighten(self, name: str) -> Card | None:
        """Hold an entry without its signatures, with which nothing is compared any more; as it is
        then, or None if it has none.
        """
        entry = self._cards[name].entry
        if entry.text is None and entry.prompt is None:
            return None
        # Its names are those that everything else here goes by: another card would have names of
        # its own.
        self._cards[name] = replace(self._cards[name], encoded=entry.without_signatures().encode())
        return self._cards[name]

    def expire(
        self, before: datetime, left: Iterable[str], is_needed: Callable[[Card], bool]
    ) -> tuple[str, ...]:
        """Forget entries that are older than `before` and not needed, and say which.

        Looked at are those that have just grown old, have changed, or `left` what had needed them:
        only those can have become needless.
        """
        candidates = [*left, *self._changed]
        self._changed.clear()
        while self._aging and self._cards[self._aging[0]].logged_at < before:
            candidates.append(self._aging[0])
            self._aged.add(self._aging.popleft())
        gone = tuple(
            name
            for name in dict.fromkeys(candidates)
            if name in self._aged and not is_needed(self._cards[name])
        )
        for name in gone:
            self._aged.discard(name)
            card = self._cards.pop(name)
            if card.answer_id and self._answers.get(card.answer_id) == name:
                del self._answers[card.answer_id]
            self._disown(card)
        return gone

    def _disown(self, card: Card) -> None:
        """Have an entry stand for its user no more."""
        if card.influence and self._users.get(card.influence) == card.feedback_id:
            del self._users[card.influence]
