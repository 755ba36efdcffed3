"""Every dashboard query returns data from a real Prometheus that scraped the four services through
all the situations that the panels show.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grafana.dashboards import NAMES, PanelQuery, queries, read, variables
from tests.grafana.prometheus import NAMESPACE, Prometheus, Series, has_data
from tests.grafana.stack import MODEL, WINDOW_MODEL, Stack
from tests.support.programs import require_program

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def prometheus(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scraped the whole scenario; the services still run."""
    folder = tmp_path_factory.mktemp("dashboards")
    stack = Stack(folder / "stack", bases / "smollm2-135m-instruct")
    prometheus = Prometheus(require_program("prometheus"), folder / "prometheus", stack.targets)

    async def run_scenario() -> None:
        await stack.start()
        await stack.run_scenario()
        await asyncio.sleep(3)  # until the last changes are scraped

    try:
        prometheus.start()
        asyncio.run(run_scenario())
        yield prometheus
    finally:
        prometheus.stop()
        stack.stop()


@pytest.mark.parametrize("name", NAMES)
def test_every_query_has_data(prometheus: Prometheus, name: str) -> None:
    """With the variables' values and with `All`. The labels of the legend exist, and moves of the
    champion have an annotation.
    """
    board = read(name)
    chosen = {
        "$namespace": NAMESPACE,
        "$model": "|".join(_values(prometheus, board, "model", NAMESPACE)),
    }
    board_queries = list(queries(board))
    assert len(board_queries) >= 15
    empty, unlabelled = [], []
    for query in board_queries:
        for values in (chosen, chosen | {"$model": ".+"}):
            result = _run_query(prometheus, query, values)
            if not has_data(result):
                empty.append(f"{query.where}: {query.expr}")
            elif any(not query.legend_labels <= set(series["metric"]) for series in result):
                unlabelled.append(f"{query.where}: {query.legend}: {result[0]['metric']}")
    assert not empty, "\n".join(empty)
    assert not unlabelled, "\n".join(unlabelled)


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_has_values(prometheus: Prometheus, name: str) -> None:
    board = read(name)
    assert _values(prometheus, board, "namespace", "") == [NAMESPACE]
    assert _values(prometheus, board, "model", NAMESPACE) == [WINDOW_MODEL, MODEL]
    assert _values(prometheus, board, "model", "elsewhere") == []


def test_annotations_name_the_version(prometheus: Prometheus) -> None:
    """Promoted by the gate and by the operator, rolled back by the operator in between."""
    annotations = {
        query.where: query
        for query in queries(read("overview"))
        if query.where.endswith(("Promotions", "Rollbacks"))
    }
    values = {"$namespace": NAMESPACE, "$model": MODEL}
    promotions, rollbacks = (
        [
            (series["metric"]["model"], series["metric"]["version"], len(series["values"]))
            for series in _run_query(prometheus, annotation, values)
        ]
        for annotation in annotations.values()
    )
    assert promotions == [(MODEL, "1", 2)]
    assert rollbacks == [(MODEL, "0", 1)]


def _values(
    prometheus: Prometheus, board: dict[str, object], variable: str, namespace: str
) -> list[str]:
    return prometheus.label_values(variables(board)[variable].replace("$namespace", namespace))


def _run_query(prometheus: Prometheus, query: PanelQuery, values: dict[str, str]) -> list[Series]:
    expr = query.expr
    for name, value in values.items():
        expr = expr.replace(name, value)
    return prometheus.query_instant(expr) if query.instant else prometheus.query_range(expr)
