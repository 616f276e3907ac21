// The nine figures of a tutor as of each of the last 30 days.
import { get, keepAsking, tutorPath } from "./api.js";
import { drop, picture, trendChart } from "./charts.js";
import { make } from "./dom.js";
import { loading, refusal } from "./notice.js";
import { FIGURES, TIERS, WINDOWS, bare, day, instant, number, withUnit } from "./words.js";

const REFRESH_SECONDS = 300;

export function trends(box, id) {
  let span = "30day";
  let drawn = [];
  const charts = make("div", { class: "trends" });
  const select = make("select", { id: "trend-window" }, Object.entries(WINDOWS).map(([value, text]) => make("option", { value, selected: value === span }, text)));
  box.hidden = false;
  box.replaceChildren(
    make(
      "div",
      { class: "head" },
      make("h3", { id: "trends-title" }, "Trend of the last 30 days"),
      make("div", { class: "field" }, make("label", { for: "trend-window" }, "Each day's figure over"), select),
    ),
    charts,
  );
  charts.append(loading("Loading trends …"));

  function clear() {
    for (const chart of drawn) drop(chart);
    drawn = [];
  }

  function show({ days }) {
    clear();
    const seconds = days.map(({ as_of: at }) => instant(at).getTime() / 1000);
    const pictures = [tierFigure(days, seconds), ...Object.keys(FIGURES).map((figure) => numberFigure(figure, days, seconds))];
    charts.replaceChildren(...pictures.map((one) => one.element), valuesTable(days));
    for (const { chart, options } of pictures) {
      if (!options) continue;
      trendChart(chart, options);
      drawn.push(chart);
    }
  }

  const asking = keepAsking({
    ask: (signal) => get(`${tutorPath(id)}/trends`, { window: span }, signal),
    everySeconds: REFRESH_SECONDS,
    show,
    fail(refused) {
      clear();
      charts.replaceChildren(refusal(refused, () => asking.now()));
    },
  });
  select.addEventListener("change", () => {
    span = select.value;
    void asking.now();
  });
  return {
    stop() {
      asking.stop();
      clear();
    },
  };
}

function figureBox(title, now, sentence, options) {
  const chart = options ? picture(sentence) : make("p", { class: "quiet" }, sentence);
  const heading = make("figcaption", {}, make("span", { class: "what" }, title), make("span", { class: "how" }, now));
  return { element: make("figure", {}, heading, chart), chart, options };
}

function numberFigure(figure, days, seconds) {
  const values = days.map((one) => one[figure]);
  const known = values.filter((value) => value !== null);
  const { long, digits } = FIGURES[figure];
  if (!known.length) return figureBox(long, "no data", "No data on any of the 30 days.", null);
  const say = (value) => withUnit(figure, value);
  const sentence = `${long}: ${say(known[0])} at first, ${say(known.at(-1))} at last; lowest ${say(Math.min(...known))}, highest ${say(Math.max(...known))}.`;
  const format = (value) => (value === null ? "" : number(value, digits === 0 || value % 1 === 0 ? 0 : figure === "avg_rating" ? 1 : digits));
  return figureBox(long, say(values.at(-1)), sentence, { seconds, values, format, whole: digits === 0 });
}

function tierFigure(days, seconds) {
  const levels = days.map((one) => (TIERS.includes(one.performance_tier) ? TIERS.length - 1 - TIERS.indexOf(one.performance_tier) : null));
  const steps = days.filter((one, index) => index && one.performance_tier !== days[index - 1].performance_tier);
  const moves = steps.map((one) => `${one.performance_tier ?? "no tier"} from ${day(instant(one.as_of))}`);
  const sentence = `Tier: ${days[0]?.performance_tier ?? "none"} at first${moves.length ? `; ${moves.join(", ")}` : ", no change"}.`;
  const names = [...TIERS].reverse();
  const options = { seconds, values: levels, format: (level) => names[level] ?? "", range: [-0.3, 4.3], ticks: [0, 1, 2, 3, 4], steps: true };
  return figureBox("Tier", days.at(-1)?.performance_tier ?? "none", sentence, levels.some((level) => level !== null) ? options : null);
}

/** The same as numbers, for whoever prefers them. */
function valuesTable(days) {
  const heads = [["", "Day"], ["", "Tier"], ...Object.values(FIGURES).map(({ label, unit }) => [unit, label])];
  return make(
    "details",
    { class: "values" },
    make("summary", {}, "All values as a table"),
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values of the last 30 days" },
      make(
        "table",
        { class: "plain" },
        make("caption", { class: "unseen" }, "Figures as of each of the last 30 days, newest first"),
        make("thead", {}, make("tr", {}, heads.map(([unit, label]) => make("th", { scope: "col" }, label, unit && make("span", { class: "unit" }, ` ${unit}`))))),
        make(
          "tbody",
          {},
          [...days].reverse().map((one) =>
            make("tr", {}, make("th", { scope: "row" }, day(instant(one.as_of))), make("td", {}, one.performance_tier ?? "–"), Object.keys(FIGURES).map((figure) => make("td", { class: "number" }, bare(figure, one[figure])))),
          ),
        ),
      ),
    ),
  );
}
