// Draws what a page holds as data: <div data-plot-of="ID"> is drawn from the element ID's data-plot, again whenever that was replaced.
"use strict";

const drawn = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(plot, width) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const scales = [...new Set(plot.lines.map((line) => line.scale || "y"))];
  const across = plot.names
    ? { splits: () => plot.x, values: (u, splits) => splits.map((at) => plot.names[at]) }
    : { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] };
  return {
    width,
    height: 220,
    scales: { x: { time: false, range: plot.x.length > 1 ? undefined : (u, at) => [at - 1, at + 1] } },
    legend: { live: true },
    cursor: { drag: { x: false, y: false } },
    axes: [
      { ...axis, label: plot.across, labelSize: 20, labelFont: "12px system-ui, sans-serif", size: 30, ...across },
      ...scales.map((scale, place) => ({ ...axis, scale, side: place ? 1 : 3, size: 64, grid: { ...axis.grid, show: !place } })),
    ],
    series: [
      { label: plot.across, value: (u, at) => (at === null ? "–" : plot.names ? plot.names[at] : at) },
      ...plot.lines.map((line, place) => ({
        label: line.label,
        scale: line.scale || "y",
        stroke: colour(place ? "--wait" : "--mark"),
        width: 2,
        points: { show: plot.x.length < 80, size: 5 },
        value: (u, value) => (value === null ? "–" : value.toFixed(4)),
      })),
    ],
  };
}

function draw(place, anew) {
  const source = document.getElementById(place.dataset.plotOf);
  if (!source) return;
  const plot = JSON.parse(source.dataset.plot);
  const data = [plot.x, ...plot.lines.map((line) => line.values)];
  place.hidden = plot.x.length === 0;
  if (place.hidden) return;
  const before = drawn.get(place);
  if (before && !anew) {
    before.setData(data);
  } else {
    if (before) before.destroy();
    drawn.set(place, new uPlot(options(plot, place.clientWidth), data, place));
  }
  place.dataset.points = plot.x.length;
}

function drawAll(anew) {
  for (const place of document.querySelectorAll("[data-plot-of]")) draw(place, anew);
}

drawAll(true);
document.body.addEventListener("htmx:afterSwap", () => drawAll(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
new ResizeObserver(() => {
  for (const [place, plot] of drawn) if (place.clientWidth && place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height: 220 });
}).observe(document.getElementById("content"));
