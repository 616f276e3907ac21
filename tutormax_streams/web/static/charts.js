// Line charts: uPlot in the page's colours, and a sentence for those who do not see them.
import { make } from "./dom.js";
import { TIERS, clock, day, tierKey } from "./words.js";

const FONT = "12px system-ui, sans-serif";
/** Lines differ in pattern too, not by colour alone. */
const DASHES = [[], [10, 4], [2, 4], [10, 4, 2, 4], [5, 3]];
/** Steps of axes that count. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000];
const LABEL_HEIGHT = 15;
const charts = new Set();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const pixels = (value) => value * devicePixelRatio;

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const plot = target.plot;
    if (plot && contentRect.width > 0) plot.setSize({ width: contentRect.width, height: plot.height });
  }
});

document.addEventListener("theme", () => {
  for (const plot of charts) plot.redraw(false);
});

function draw(box, options, data) {
  const plot = new window.uPlot({ width: box.clientWidth || 320, legend: { show: false }, ...options }, data, box);
  box.plot = plot;
  charts.add(plot);
  sizes.observe(box);
  return plot;
}

export function drop(box) {
  if (!box.plot) return;
  sizes.unobserve(box);
  charts.delete(box.plot);
  box.plot.destroy();
  box.plot = null;
}

const axis = (more) => ({
  stroke: () => colour("--quiet"),
  font: FONT,
  grid: { stroke: () => colour("--line"), width: 1 },
  ticks: { show: false },
  ...more,
});

/** Names the lines at their right ends, apart enough to be read. */
function nameLines(plot) {
  const { ctx, bbox } = plot;
  const ends = TIERS.map((tier, index) => ({ tier, at: plot.valToPos(plot.data[index + 1].at(-1) ?? 0, "y", true) }));
  ends.sort((one, other) => one.at - other.at);
  const gap = pixels(LABEL_HEIGHT);
  ends.forEach((end, index) => {
    if (index) end.at = Math.max(end.at, ends[index - 1].at + gap);
  });
  const most = bbox.top + bbox.height;
  for (let index = ends.length - 1; index >= 0; index -= 1) {
    const limit = index === ends.length - 1 ? most : ends[index + 1].at - gap;
    ends[index].at = Math.min(ends[index].at, limit);
  }
  ctx.save();
  ctx.font = `${pixels(12)}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  for (const { tier, at } of ends) {
    ctx.fillStyle = colour(`--${tierKey(tier)}`);
    ctx.fillText(tier, bbox.left + bbox.width + pixels(8), at);
  }
  ctx.restore();
}

/** Tutors per tier over time. `data`: [seconds since 1970, one list per tier]. */
export function tierChart(box, data) {
  const options = {
    height: 262,
    padding: [10, 112, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    scales: {
      x: { range: ({ data: [at] }) => [at[0], Math.max(at.at(-1), at[0] + 60)] }, // a lone point would span a day
      y: { range: (_, from, to) => [0, Math.max(5, to * 1.05)] },
    },
    axes: [
      axis({ size: 28, space: 90, values: (_, at) => at.map((second) => clock(new Date(second * 1000))) }),
      axis({ size: 48, incrs: WHOLE, space: 40 }),
    ],
    series: [
      {},
      ...TIERS.map((tier, index) => ({
        label: tier,
        stroke: () => colour(`--${tierKey(tier)}`),
        width: 2,
        dash: DASHES[index],
        points: { show: (plot) => plot.data[0].length < 3, size: 6 },
      })),
    ],
    hooks: { draw: [nameLines] },
  };
  return draw(box, options, data);
}

/** One figure over 30 days; `format` writes a value, `steps` draws stairs with fixed `range`, `whole` keeps the axis to whole numbers. */
export function trendChart(box, { seconds, values, format, whole = false, range = null, ticks = null, steps = false }) {
  const { stepped } = window.uPlot.paths;
  const options = {
    height: 120,
    padding: [8, 22, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    scales: {
      x: { range: [seconds[0], seconds.at(-1)] },
      y: { range: (_, from, to) => range ?? around(from, to) },
    },
    axes: [
      axis({ size: 24, space: 70, grid: { show: false }, values: (_, at) => at.map((second) => day(new Date(second * 1000))) }),
      axis({ size: steps ? 104 : 44, space: 24, ...(whole && { incrs: WHOLE }), splits: ticks ? () => ticks : undefined, values: (_, at) => at.map(format) }),
    ],
    series: [
      {},
      {
        stroke: () => colour("--accent"),
        width: 2,
        points: { show: values.filter((value) => value !== null).length < 3 },
        paths: steps ? stepped({ align: 1 }) : undefined,
      },
    ],
  };
  return draw(box, options, [seconds, values]);
}

function around(from, to) {
  if (from === null || to === null) return [0, 1];
  const slack = Math.max((to - from) * 0.15, Math.abs(to) * 0.02, 0.2);
  return [Math.max(0, from - slack), to + slack];
}

/** A box for a chart that screen readers read as one picture with this sentence. */
export const picture = (sentence) => make("div", { class: "chart", role: "img", "aria-label": sentence });
