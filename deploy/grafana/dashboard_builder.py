"""What all dashboards share: variables, marks for promotions and rollbacks, links to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import ORANGE, PURPLE, WIDTH, Panel, datasource

ANCHOR_METRIC = "ratchet_registry_champion_number"
"""The registry has it from its start, for every declared model."""

NAMESPACE = 'namespace=~"$namespace"'
MODEL = f'{NAMESPACE}, model=~"$model"'

_CHAMPION = f"max by (model) ({ANCHOR_METRIC}{{{MODEL}}})"
_BEFORE = f"max by (model) ({ANCHOR_METRIC}{{{MODEL}}} offset $__interval)"


Sized: TypeAlias = tuple[models.Panel, models.GridPos]


@dataclass(frozen=True, slots=True)
class DashboardRow:
    """Panels under a heading, which is the question that they answer."""

    title: str
    panels: Sequence[Panel]


def build_dashboard(
    uid: str, title: str, description: str, rows: Sequence[DashboardRow], since: str = "now-24h"
) -> models.Dashboard:
    """A dashboard. The panels of each row are put beside each other, in lines of 24 columns."""
    made = (
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
                _moved(
                    "Promotions",
                    f"{_CHAMPION} > {_BEFORE}",
                    "{{model}} promoted to version {{version}}",
                    PURPLE,
                ),
                _moved(
                    "Rollbacks",
                    f"{_CHAMPION} < {_BEFORE}",
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
    built = made.build()
    built.panels = _placed(rows)
    return built


def _placed(rows: Sequence[DashboardRow]) -> list[models.Panel | models.RowPanel]:
    """Headings and panels with their places and numbers; the panels of a line are as high as the
    highest of them.
    """
    placed: list[models.Panel | models.RowPanel] = []
    y = 0
    for row in rows:
        at = models.GridPos(h=1, w=WIDTH, x=0, y=y)
        placed.append(models.RowPanel(title=row.title, id_val=len(placed) + 1, grid_pos=at))
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
    """As many panels to a line as fit into it."""
    lines: list[list[Sized]] = [[]]
    for panel, size in panels:
        if sum(before.w for _, before in lines[-1]) + size.w > WIDTH:
            lines.append([])
        lines[-1].append((panel, size))
    return lines


def _size(panel: models.Panel) -> models.GridPos:
    assert panel.grid_pos is not None, panel.title
    return panel.grid_pos


def _source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _namespace() -> dashboard.QueryVariable:
    """One at a time, as two may declare the same model. Where nothing has the label there is none,
    and the empty one matches all.
    """
    return _values_of("namespace", "Namespace", f"label_values({ANCHOR_METRIC}, namespace)")


def _model() -> dashboard.QueryVariable:
    variable = _values_of("model", "Model", f"label_values({ANCHOR_METRIC}{{{NAMESPACE}}}, model)")
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".+").current(everything)


def _values_of(name: str, label: str, asked: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(datasource())
        .query({"qryType": 1, "query": asked, "refId": f"PrometheusVariableQueryEditor-{name}"})
        .definition(asked)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _moved(name: str, holds: str, title: str, colour: str) -> dashboard.AnnotationQuery:
    """A mark where the champion's number has changed since the step before; the number becomes a
    label, so that the title can say it.
    """
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(datasource())
        .enable(True)
        .icon_color(colour)
        .expr(f'count_values by (model) ("version", {holds})')
        .step("30s")
        .title_format(title)
        .tag_keys("model")
    )
