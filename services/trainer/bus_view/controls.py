"""Read model of operators' pauses of training."""

from shared.events import PauseEvent, TrainingPaused


class TrainingControls:
    """Newest decision on each model. A repeat or another order changes nothing: the highest number
    counts.
    """

    def __init__(self) -> None:
        self._newest: dict[str, PauseEvent] = {}

    def apply(self, event: PauseEvent) -> None:
        newest = self._newest.get(event.model)
        if newest is None or event.number > newest.number:
            self._newest[event.model] = event

    def pause_of(self, model: str) -> TrainingPaused | None:
        """Return the pause of a model's training, None if it is not paused."""
        newest = self._newest.get(model)
        return newest if isinstance(newest, TrainingPaused) else None
