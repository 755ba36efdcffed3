"""Builds dashboards with common variables, annotations for promotions and rollbacks, and links."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import ORANGE, PURPLE, WIDTH, Panel, datasource

ANCHOR_METRIC = "ratchet_registry_champion_number"
"""The registry exports it for every declared model from its start."""

NAMESPACE = 'namespace=~"$namespace"'
MODEL = f'{NAMESPACE}, model=~"$model"'

_CHAMPION = f"max by (model) ({ANCHOR_METRIC}{{{MODEL}}})"
_PREVIOUS = f"max by (model) ({ANCHOR_METRIC}{{{MODEL}}} offset $__interval)"


Sized: TypeAlias = tuple[models.Panel, models.GridPos]


@dataclass(frozen=True, slots=True)
class DashboardRow:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


def build_dashboard(
    uid: str, title: str, description: str, rows: Sequence[DashboardRow], since: str = "now-24h"
) -> models.Dashboard:
    """Build a dashboard. The panels of a row fill lines of 24 columns."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["ratchet"])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .variables([_source(), _namespace(), _model()])
        .annotations(
            [
                _move_annotation(
                    "Promotions",
                    f"{_CHAMPION} > {_PREVIOUS}",
                    "{{model}} promoted to version {{version}}",
                    PURPLE,
                ),
                _move_annotation(
                    "Rollbacks",
                    f"{_CHAMPION} < {_PREVIOUS}",
                    "{{model}} rolled back to version {{version}}",
                    ORANGE,
                ),
            ]
        )
        .link(
            dashboard.DashboardLink("Ratchet")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["ratchet"])
            .include_vars(True)
            .keep_time(True)
        )
    )
    built = builder.build()
    built.panels = _placed(rows)
    return built


def _placed(rows: Sequence[DashboardRow]) -> list[models.Panel | models.RowPanel]:
    """Return headings and panels with positions and ids. All panels of a line get the height of the
    tallest.
    """
    placed: list[models.Panel | models.RowPanel] = []
    y = 0
    for row in rows:
        position = models.GridPos(h=1, w=WIDTH, x=0, y=y)
        placed.append(models.RowPanel(title=row.title, id_val=len(placed) + 1, grid_pos=position))
        y += 1
        for line in _lines(
            [(panel, _size(panel)) for panel in (builder.build() for builder in row.panels)]
        ):
            height, x = max(size.h for _, size in line), 0
            for panel, size in line:
                panel.id_val = len(placed) + 1
                panel.grid_pos = models.GridPos(h=height, w=size.w, x=x, y=y)
                placed.append(panel)
                x += size.w
            y += height
    return placed


def _lines(panels: Sequence[Sized]) -> list[list[Sized]]:
    """Distribute panels over lines, as many per line as fit."""
    lines: list[list[Sized]] = [[]]
    for panel, size in panels:
        if sum(size_before.w for _, size_before in lines[-1]) + size.w > WIDTH:
            lines.append([])
        lines[-1].append((panel, size))
    return lines


def _size(panel: models.Panel) -> models.GridPos:
    assert panel.grid_pos is not None, panel.title
    return panel.grid_pos


def _source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _namespace() -> dashboard.QueryVariable:
    """The namespace, one at a time, because two namespaces may declare the same model. If no series
    has the label, the value is empty and matches all.
    """
    return _values_of("namespace", "Namespace", f"label_values({ANCHOR_METRIC}, namespace)")


def _model() -> dashboard.QueryVariable:
    variable = _values_of("model", "Model", f"label_values({ANCHOR_METRIC}{{{NAMESPACE}}}, model)")
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".+").current(everything)


def _values_of(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(datasource())
        .query({"qryType": 1, "query": query, "refId": f"PrometheusVariableQueryEditor-{name}"})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _move_annotation(
    name: str, condition: str, title: str, colour: str
) -> dashboard.AnnotationQuery:
    """An annotation where the champion's number changed since the previous step. The number becomes
    a label, so that the title can contain it.
    """
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(datasource())
        .enable(True)
        .icon_color(colour)
        .expr(f'count_values by (model) ("version", {condition})')
        .step("30s")
        .title_format(title)
        .tag_keys("model")
    )
