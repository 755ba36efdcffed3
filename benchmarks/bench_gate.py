"""Error rates of the gate, on candidates of known quality and over whole lives of a model.

A customer has a cipher (`benchmarks.gate.cipher_task`), and its champion has learned a part of it.
Candidates are trained from the champion by the trainer's own recipe, on much, little or no good
data, of which 0, 10, 30 or 100 % is poisoned. Null candidates are the champion with noise on its
weights, or trained on answers that belong to other prompts. The gate gets the inputs of production:
the held-out share of the batch, poisoned as well, with that of earlier batches; a golden set of 32
drawn again for each candidate; the abilities of the base. It spends the error of a first gate. The
truth is the mean difference on 1,000 prompts that it never sees. Runs that the trainer ends early
because they diverge never reach the gate: they are only counted.

The true quality of a candidate was defined before anything was measured, in nats per answer token:
better by `LARGE_GAIN` or more; better by `SMALL_GAIN` or more; worse by `SMALL_GAIN` or more; or
about the same. A null candidate is one that was created as such and is not truly better.

Lives of 1,000 gates are simulated with the scores of these candidates (`benchmarks.gate.lives`).

Also writes its tables into docs/gate.md.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from benchmarks.gate.candidates import CHAMPIONS, GATE, Trials, run_trials
from benchmarks.gate.life_figures import RuleFigures, figures_of_rule, life_results, life_tables
from benchmarks.gate.lives import Life, begin_life
from benchmarks.gate.minimum_examples import simulate_bound_errors
from benchmarks.gate.populations import Population, normal_population, population_of
from benchmarks.gate.promotion_rules import RULES
from benchmarks.gate.tables import candidate_tables, summarize, write_page
from benchmarks.results import report
from ratchet import console

PROCESSES = 2
LIVES = 200


def main() -> None:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        errors = pool.submit(simulate_bound_errors)
        trials: list[Trials] = []
        for customer, result in enumerate(pool.map(run_trials, range(len(CHAMPIONS))), start=1):
            trials.append(result)
            console.print_status(
                f"customer {customer} of {len(CHAMPIONS)}: {len(result.candidates)} candidates, "
                f"{result.diverged} runs that diverged"
            )
        candidates = [row.result for result in trials for row in result.candidates]
        figures = summarize(candidates, sum(result.diverged for result in trials))
        populations = [population_of(result, GATE) for result in trials]
        lives = simulate_rules([each for each in populations if each], pool)
        console.print_status(f"{LIVES} lives of 1,000 gates")
        normal = simulate_rules([normal_population(seed, GATE) for seed in range(4)], pool)
        tables = candidate_tables(candidates, figures, errors.result())
        write_page("\n\n".join([tables, *life_tables(lives, normal)]))
    report("gate", [*figures, *life_results(lives)])


def simulate_rules(populations: Sequence[Population], pool: Executor) -> dict[str, RuleFigures]:
    """Return the figures of every rule over the same lives, which take the populations in turn."""
    begin: Callable[[Population, int], Life] = partial(begin_life, gate=GATE)
    turns = [populations[seed % len(populations)] for seed in range(LIVES)]
    lives = list(pool.map(begin, turns, range(LIVES), chunksize=10))
    names = list(RULES)
    return dict(zip(names, pool.map(partial(figures_of_rule, lives), names), strict=True))


if __name__ == "__main__":
    main()
