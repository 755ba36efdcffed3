// Draws plots from the data in a page: <div data-plot-of="ID"> shows the data-plot of the element ID, and is redrawn when htmx replaces that element.
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
      ...scales.map((scale, index) => ({ ...axis, scale, side: index ? 1 : 3, size: 64, grid: { ...axis.grid, show: !index } })),
    ],
    series: [
      { label: plot.across, value: (u, at) => (at === null ? "–" : plot.names ? plot.names[at] : at) },
      ...plot.lines.map((line, index) => ({
        label: line.label,
        scale: line.scale || "y",
        stroke: colour(index ? "--wait" : "--mark"),
        width: 2,
        points: { show: plot.x.length < 80, size: 5 },
        value: (u, value) => (value === null ? "–" : value.toFixed(4)),
      })),
    ],
  };
}

function draw(container, rebuild) {
  const source = document.getElementById(container.dataset.plotOf);
  if (!source) return;
  const plot = JSON.parse(source.dataset.plot);
  const data = [plot.x, ...plot.lines.map((line) => line.values)];
  container.hidden = plot.x.length === 0;
  if (container.hidden) return;
  const before = drawn.get(container);
  if (before && !rebuild) {
    before.setData(data);
  } else {
    if (before) before.destroy();
    drawn.set(container, new uPlot(options(plot, container.clientWidth), data, container));
  }
  container.dataset.points = plot.x.length;
}

function drawAll(rebuild) {
  for (const container of document.querySelectorAll("[data-plot-of]")) draw(container, rebuild);
}

drawAll(true);
document.body.addEventListener("htmx:afterSwap", () => drawAll(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
new ResizeObserver(() => {
  for (const [container, plot] of drawn) if (container.clientWidth && container.clientWidth !== plot.width) plot.setSize({ width: container.clientWidth, height: 220 });
}).observe(document.getElementById("content"));
