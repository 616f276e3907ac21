// The top of the dashboard: totals, tutors per tier now and over time. It counts; who changed is changes.js.
import { tierChart } from "./charts.js";
import { byId, make, setText } from "./dom.js";
import { TIERS, TIER_SIGNS, clock, number, tierKey } from "./words.js";

const MOST_POINTS = 6_000;
const EVENT_POINT_MS = 1_000;
/** Where a tab keeps the chart over being loaded again, how often, and what is a gap in it. */
const KEPT = "tutors-per-tier";
const KEEP_MS = 5_000;
const GAP_SECONDS = 60;
const TOTALS = [
  ["Tutors", "total_tutors", 0, ""],
  ["With figures", "active_tutors", 0, "30 days"],
  ["Mean rating", "avg_rating", 2, "stars"],
  ["Mean engagement", "avg_engagement_score", 1, "%"],
  ["Sessions", "total_sessions_7day", 0, "in 7 days"],
  ["Sessions", "total_sessions_30day", 0, "in 30 days"],
];
/** Of the deployment's last minute, from /operations/state: what a history took to flow in is soon no more in it. */
const FLOW = [
  ["Event to row, median", ({ p50_seconds: seconds }) => number(seconds, 1), "s, last minute"],
  ["Events a second", ({ events, period_seconds: seconds }) => number(seconds ? events / seconds : null, 1), "last minute"],
];

/** `onTier(tier|null)` is told which tier somebody chose. */
export function overview(onTier) {
  const totals = buildTotals();
  const flow = buildFlow();
  const bars = buildBars(onTier);
  const history = buildHistory();
  let counts = null;
  let pending = null;

  function show(spread) {
    bars.show(spread);
    history.add(Date.now(), spread);
  }

  return {
    select: bars.select,
    /** How fresh rows are and how many events come; null where nobody can say. */
    flow,
    /** `/dashboard/analytics` as it was answered. */
    answer(answer) {
      totals(answer);
      counts = { ...answer.performance_distribution };
      show(counts);
    },
    /** Between answers, tier events move tutors from bar to bar; the next answer corrects. */
    moved({ old, new: next }) {
      if (!counts || !(next in counts)) return;
      counts[next] += 1;
      if (old in counts) counts[old] = Math.max(0, counts[old] - 1);
      pending ??= setTimeout(() => {
        pending = null;
        show(counts);
      }, EVENT_POINT_MS);
    },
  };
}

function buildTotals() {
  const cells = TOTALS.map(([label, name, digits, unit]) => {
    const value = make("span", { class: "value" }, "–");
    byId("totals").append(make("div", {}, make("dt", {}, label), make("dd", {}, value, unit && make("span", { class: "unit" }, ` ${unit}`))));
    return { value, name, digits };
  });
  return (answer) => {
    for (const { value, name, digits } of cells) setText(value, number(answer[name], digits));
  };
}

function buildFlow() {
  const cells = FLOW.map(([label, text, unit]) => {
    const value = make("span", { class: "value" }, "–");
    byId("totals").append(make("div", {}, make("dt", {}, label), make("dd", {}, value, make("span", { class: "unit" }, ` ${unit}`))));
    return { value, text };
  });
  return (freshness) => {
    for (const { value, text } of cells) setText(value, freshness ? text(freshness) : "–");
  };
}

function buildBars(onTier) {
  const rows = TIERS.map((tier) => {
    const count = make("span", { class: "count" }, "–");
    const meter = make("progress", { class: `meter ${tierKey(tier)}`, max: "1", value: "0", "aria-hidden": "true" });
    const button = make(
      "button",
      { type: "button", "aria-pressed": "false", class: "tier-row" },
      make("span", { class: `sign ${tierKey(tier)}`, "aria-hidden": "true" }, TIER_SIGNS[tier]),
      make("span", { class: "name" }, tier),
      count,
      meter,
    );
    button.addEventListener("click", () => onTier(button.getAttribute("aria-pressed") === "true" ? null : tier));
    byId("tiers").append(make("li", {}, button));
    return { tier, button, count, meter };
  });
  return {
    show(spread) {
      const all = TIERS.reduce((sum, tier) => sum + (spread[tier] ?? 0), 0);
      for (const { tier, count, meter } of rows) {
        const tutors = spread[tier] ?? 0;
        const share = all ? tutors / all : 0;
        setText(count, `${number(tutors)} (${number(share * 100)} %)`);
        meter.value = share;
      }
    },
    select(chosen) {
      for (const { tier, button } of rows) button.setAttribute("aria-pressed", String(tier === chosen));
    },
  };
}

/** What this tab drew before it was loaded again: seconds, then tutors by tier; nothing if there is none or it is odd. */
function keptHistory() {
  const empty = [[], ...TIERS.map(() => [])];
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    const fits = Array.isArray(kept) && kept.length === empty.length && kept.every((list) => Array.isArray(list) && list.length === kept[0].length);
    if (!fits || !kept[0].length || kept[0].at(-1) > Date.now() / 1000) return empty;
    if (Date.now() / 1000 - kept[0].at(-1) > GAP_SECONDS) kept.forEach((list, index) => list.push(index ? null : kept[0].at(-1) + 0.001));
    return kept;
  } catch {
    return empty;
  }
}

function buildHistory() {
  const box = byId("history");
  const data = keptHistory();
  let plot = null;
  let keptAt = 0;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", "Line chart of tutors per tier: no figures yet.");
  setText(byId("history-hint"), `From ${clock(new Date(data[0].length ? data[0][0] * 1000 : Date.now()))}. A point every 10 s and at each change.`);

  /** When full, every second point of the older half goes: what is long ago needs less detail. */
  function thin() {
    const half = MOST_POINTS / 2;
    for (const list of data) list.splice(0, half, ...list.slice(0, half).filter((_, index) => index % 2 === 0));
  }

  return {
    add(atMs, spread) {
      data[0].push(Math.max(atMs / 1000, (data[0].at(-1) ?? 0) + 0.001));
      TIERS.forEach((tier, index) => data[index + 1].push(spread[tier] ?? 0));
      if (data[0].length > MOST_POINTS) thin();
      if (atMs - keptAt > KEEP_MS) {
        keptAt = atMs;
        try {
          sessionStorage.setItem(KEPT, JSON.stringify(data));
        } catch {
          // no room, or not allowed: then the next load begins anew
        }
      }
      const change = TIERS.map((tier, index) => {
        const [first, last] = [data[index + 1][0], data[index + 1].at(-1)];
        return `${tier} ${number(first)} then, ${number(last)} now`;
      });
      // Since the first point: it is what the chart begins with when it is loaded again, however late figures came.
      const since = clock(new Date(data[0][0] * 1000));
      box.setAttribute("aria-label", `Line chart of tutors per tier since ${since}: ${change.join("; ")}.`);
      if (plot) plot.setData(data);
      else if (box.clientWidth) plot = tierChart(box, data);
    },
  };
}
