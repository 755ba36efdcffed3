"""The panel types of the dashboards. Each panel has a description of its content and of the action
to take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as parts
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

WIDTH = 24
"""Columns of Grafana's grid."""

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    "green",
    "yellow",
    "orange",
    "red",
    "blue",
    "purple",
    "#8e8e8e",
)

Panel: TypeAlias = Builder[models.Panel]
Thresholds: TypeAlias = Sequence[tuple[float | None, str]]
"""Lower bound and colour of each range of values; the first bound is None."""
StateLabels: TypeAlias = dict[int, tuple[str, str]]
"""Label and colour of each value."""

NO_THRESHOLDS: Thresholds = ((None, BLUE),)
RED_FROM_ONE: Thresholds = ((None, GREEN), (1, RED))


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and the legend of its series. `instant` queries only the end of the time range."""

    expr: str
    legend: str
    instant: bool = False


def datasource() -> parts.DataSourceRef:
    """The data source that the dashboard variable selects."""
    return parts.DataSourceRef(type_val="prometheus", uid="${datasource}")


def stat_panel(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "none",
    steps: Thresholds = NO_THRESHOLDS,
    states: StateLabels | None = None,
    colours: dict[str, str] | None = None,
    no_value: str = "no data",
    width: int = 4,
    sparkline: bool = False,
) -> Panel:
    """A number for each series. `colours` maps series names to colours; `no_value` is shown without
    data; `sparkline` adds the history.
    """
    names = (
        parts.BigValueTextMode.VALUE_AND_NAME
        if any("{{" in query.legend for query in queries)
        else parts.BigValueTextMode.VALUE
    )
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(datasource())
        .targets(_targets(queries))
        .unit(unit)
        .decimals(0)
        .no_value(no_value)
        .thresholds(_thresholds(steps))
        .mappings(_mappings(states))
        .color_mode(
            parts.BigValueColorMode.BACKGROUND
            if steps is not NO_THRESHOLDS or states
            else parts.BigValueColorMode.VALUE
        )
        .graph_mode(parts.BigValueGraphMode.AREA if sparkline else parts.BigValueGraphMode.NONE)
        .text_mode(names)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(5)
    )
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    return panel


def time_series_panel(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    steps: Thresholds = NO_THRESHOLDS,
    colours: dict[str, str] | None = None,
    soft_min: float | None = None,
    logarithmic: bool = False,
    stepped: bool = False,
    width: int = 8,
) -> Panel:
    """Values over time, with thresholds as lines. `soft_min` is the highest start of the axis."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(datasource())
        .targets(_targets(queries))
        .unit(unit)
        .legend(_legend(["lastNotNull", "max"]))
        .tooltip(
            common.VizTooltipOptions()
            .mode(parts.TooltipDisplayMode.MULTI)
            .sort(parts.SortOrder.DESCENDING)
        )
        .line_width(2)
        .fill_opacity(8)
        .show_points(parts.VisibilityMode.AUTO)
        .span_nulls(False)
        .line_interpolation(
            parts.LineInterpolation.STEP_AFTER if stepped else parts.LineInterpolation.LINEAR
        )
        .span(width)
        .height(8)
    )
    if soft_min is not None:
        panel.axis_soft_min(soft_min)
    if logarithmic:
        panel.scale_distribution(
            common.ScaleDistributionConfig().type(parts.ScaleDistribution.LOG).log(10)
        )
    if steps is not NO_THRESHOLDS:
        panel.thresholds(_thresholds(steps))
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(parts.GraphThresholdsStyleMode.DASHED)
        )
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    return panel


def bar_panel(
    title: str,
    description: str,
    *queries: Query,
    colours: dict[str, str] | None = None,
    width: int = 8,
) -> Panel:
    """Stacked counts per interval."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(datasource())
        .targets(_targets(queries))
        .unit("short")
        .min(0)
        .legend(_legend(["sum"]))
        .tooltip(
            common.VizTooltipOptions()
            .mode(parts.TooltipDisplayMode.MULTI)
            .sort(parts.SortOrder.DESCENDING)
        )
        .draw_style(parts.GraphDrawStyle.BARS)
        .line_width(0)
        .fill_opacity(80)
        .stacking(common.StackingConfig().mode(parts.StackingMode.NORMAL))
        .span(width)
        .height(8)
    )
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    return panel


def state_timeline_panel(
    title: str,
    description: str,
    *queries: Query,
    states: StateLabels | None = None,
    unit: str = "none",
    width: int = 24,
) -> Panel:
    """A band for each series, coloured by state or, without `states`, by value."""
    scheme = (
        models.FieldColorModeId.THRESHOLDS if states else models.FieldColorModeId.CONTINUOUS_BL_PU
    )
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(datasource())
        .targets(_targets(queries))
        .unit(unit)
        .mappings(_mappings(states))
        .color_scheme(dashboard.FieldColor().mode(scheme))
        .thresholds(_thresholds(((None, GREY),)))
        .show_value(parts.VisibilityMode.AUTO)
        .merge_values(True)
        .fill_opacity(70)
        .line_width(0)
        .row_height(0.85)
        .legend(
            common.VizLegendOptions()
            .show_legend(False)
            .display_mode(parts.LegendDisplayMode.LIST)
            .placement(_BOTTOM)
            .calcs([])
        )
        .span(width)
        .height(6)
    )


def bar_gauge_panel(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    steps: Thresholds = NO_THRESHOLDS,
    width: int = 8,
) -> Panel:
    """A bar for the current value of each series."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(datasource())
        .targets(_targets(queries))
        .unit(unit)
        .min(0)
        .thresholds(_thresholds(steps))
        .orientation(parts.VizOrientation.HORIZONTAL)
        .display_mode(parts.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("no data yet")
        .span(width)
        .height(8)
    )


def heatmap_panel(title: str, description: str, buckets: Query, width: int = 8) -> Panel:
    """Histogram buckets over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(datasource())
        .with_target(_target(buckets).format(PromQueryFormat.HEATMAP).ref_id("A"))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .steps(32)
        )
        .y_axis(heatmap.YAxisConfig().unit("none").decimals(2))
        .show_legend()
        .span(width)
        .height(8)
    )


_BOTTOM = parts.LegendPlacement.BOTTOM


def _target(query: Query) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery().datasource(datasource()).expr(query.expr).legend_format(query.legend)
    )
    return target.instant() if query.instant else target.range()


def _targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [_target(query).ref_id(chr(ord("A") + index)) for index, query in enumerate(queries)]


def _thresholds(steps: Thresholds) -> dashboard.ThresholdsConfig:
    thresholds = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds)


def _mappings(states: StateLabels | None) -> list[models.ValueMapping]:
    if not states:
        return []
    options = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(states.items())
    }
    return [models.ValueMap(options=options)]


def _legend(calculations: list[str]) -> common.VizLegendOptions:
    table = common.VizLegendOptions().show_legend(True).display_mode(parts.LegendDisplayMode.TABLE)
    return table.placement(_BOTTOM).calcs(calculations)


def _fixed(colour: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
