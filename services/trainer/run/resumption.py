"""State that a resumed run continues from: its own from before the cancellation. If the champion or
the data that it may use have changed since, the run begins again.
"""

from services.trainer.bus_view.view import EvaluationInputs
from services.trainer.run.handoff import RunHandoff
from services.trainer.run_folder import RunFolder, RunPlan


def discard_outdated_state(
    folder: RunFolder, handoff: RunHandoff, inputs: EvaluationInputs
) -> bool:
    """Delete the state of a resumed run, here and in the object store, if its plan is outdated.
    Return True if there was some.

    Repeating an interrupted call has the same result. Blocks; raises StorageUnavailable.
    """
    stored, local = handoff.plan(), folder.plan()
    if is_stored_outdated := stored is not None and is_outdated(stored, inputs):
        handoff.clear()
    # After it began again on another trainer, this one's checkpoints belong to another plan.
    is_local_outdated = local is not None and (
        is_outdated(local, inputs) or stored not in (None, local)
    )
    if is_local_outdated:
        folder.discard()
    return is_stored_outdated or is_local_outdated


def is_outdated(plan: RunPlan, inputs: EvaluationInputs) -> bool:
    """Return True if a plan that is made now would have another parent or other data."""
    return (
        plan.parent_version != inputs.champion.version
        or set(plan.quarantined) != set(inputs.quarantined)
        or set(plan.withdrawn) != inputs.withdrawn.feedback_ids
    )
