"""Every query of every dashboard on a real Prometheus that scraped the four services while
everything happened that they show.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grafana.dashboards import NAMES, Asked, queries, read, variables
from tests.grafana.prometheus import NAMESPACE, Prometheus, Series, has_data
from tests.grafana.stack import MODEL, NIGHT, Stack
from tests.support.programs import require_program

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def prometheus(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen the whole story, and the services still run."""
    folder = tmp_path_factory.mktemp("dashboards")
    stack = Stack(folder / "stack", bases / "smollm2-135m-instruct")
    prometheus = Prometheus(require_program("prometheus"), folder / "prometheus", stack.targets)

    async def tell() -> None:
        await stack.start()
        await stack.live()
        await asyncio.sleep(3)  # so that the last of it is scraped

    try:
        prometheus.start()
        asyncio.run(tell())
        yield prometheus
    finally:
        prometheus.stop()
        stack.stop()


@pytest.mark.parametrize("name", NAMES)
def test_every_query_has_data(prometheus: Prometheus, name: str) -> None:
    """With the variables' own values, and with `All`. What a legend names is there, and a mark is
    set where the champion moved.
    """
    board = read(name)
    chosen = {
        "$namespace": NAMESPACE,
        "$model": "|".join(_values(prometheus, board, "model", NAMESPACE)),
    }
    asked = list(queries(board))
    assert len(asked) >= 15
    without, unnamed = [], []
    for query in asked:
        for filled in (chosen, chosen | {"$model": ".+"}):
            found = _ask(prometheus, query, filled)
            if not has_data(found):
                without.append(f"{query.where}: {query.expr}")
            elif any(not query.named <= set(series["metric"]) for series in found):
                unnamed.append(f"{query.where}: {query.legend}: {found[0]['metric']}")
    assert not without, "\n".join(without)
    assert not unnamed, "\n".join(unnamed)


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_has_values(prometheus: Prometheus, name: str) -> None:
    board = read(name)
    assert _values(prometheus, board, "namespace", "") == [NAMESPACE]
    assert _values(prometheus, board, "model", NAMESPACE) == [NIGHT, MODEL]
    assert _values(prometheus, board, "model", "elsewhere") == []


def test_annotations_name_the_version(prometheus: Prometheus) -> None:
    """Up by the gate and by the operator, down by the operator in between."""
    marks = {
        query.where: query
        for query in queries(read("overview"))
        if query.where.endswith(("Promotions", "Rollbacks"))
    }
    filled = {"$namespace": NAMESPACE, "$model": MODEL}
    promotions, rollbacks = (
        [
            (series["metric"]["model"], series["metric"]["version"], len(series["values"]))
            for series in _ask(prometheus, mark, filled)
        ]
        for mark in marks.values()
    )
    assert promotions == [(MODEL, "1", 2)]
    assert rollbacks == [(MODEL, "0", 1)]


def _values(
    prometheus: Prometheus, board: dict[str, object], variable: str, namespace: str
) -> list[str]:
    return prometheus.label_values(variables(board)[variable].replace("$namespace", namespace))


def _ask(prometheus: Prometheus, query: Asked, filled: dict[str, str]) -> list[Series]:
    expr = query.expr
    for name, value in filled.items():
        expr = expr.replace(name, value)
    return prometheus.now(expr) if query.now else prometheus.over_time(expr)
