// One tutor's page: three windows, the tier and why, what the last week lost. Trends are trends.js.
import { get, keepAsking, tutorPath } from "./api.js";
import { tierMark } from "./changes.js";
import { make, setText } from "./dom.js";
import { loading, refusal } from "./notice.js";
import { sessions } from "./sessions.js";
import { trends } from "./trends.js";
import { FIGURES, TIER_RULES, WINDOWS, ageSeconds, clock, day, duration, instant, number, withUnit } from "./words.js";

const REFRESH_SECONDS = 15;
const AFTER_EVENT_MS = 1_000;
const SOURCES = { stream: "live, from the stream", database: "from stored rows, not live" };

/** Fills `box` with the page of tutor `id`. `withList`: whether there is a list to go back to. */
export function tutorPage(box, id, withList) {
  const title = make("h2", { id: "tutor-title", tabindex: "-1" }, id);
  const facts = make("p", { class: "facts" });
  const fresh = make("p", { class: "hint" });
  const problem = make("div", {});
  const figures = make("div", { class: "two" }, loading("Loading figures …"));
  const trendBox = make("section", { class: "panel", "aria-labelledby": "trends-title" });
  const sessionBox = make("section", { class: "panel", "aria-labelledby": "sessions-title" });
  box.replaceChildren(
    ...(withList ? [make("p", { class: "back" }, make("a", { href: "#/" }, "← All tutors"))] : []),
    make("div", { class: "tutor-head" }, title, facts, fresh),
    problem,
    figures,
    trendBox,
    sessionBox,
  );
  document.title = `${id} – Tutor performance`;
  title.focus();
  let shown = null;
  let timer = null;
  const aged = () => {
    if (!shown) return;
    const source = SOURCES[shown.source] ?? shown.source;
    setText(fresh, `Figures as of ${clock(instant(shown.as_of))}, ${duration(ageSeconds(shown.as_of))} ago; ${source}.`);
  };
  const ages = setInterval(aged, 1000);

  function show(answer) {
    shown = answer;
    document.title = `${answer.tutor_name || id} – Tutor performance`;
    setText(title, answer.tutor_name || id);
    facts.replaceChildren(tierMark(answer.performance_tier), make("span", {}, answer.tutor_id), make("span", {}, answer.tutor_status ?? "status unknown"), ...churn(answer.churn));
    aged();
    problem.replaceChildren();
    figures.replaceChildren(windowsPanel(answer), whyPanel(answer), weekPanel(answer));
  }

  const asking = keepAsking({
    ask: (signal) => get(`${tutorPath(id)}/performance`, {}, signal),
    everySeconds: REFRESH_SECONDS,
    show,
    fail(refused) {
      problem.replaceChildren(refusal(refused, () => asking.now()));
      if (!shown) figures.replaceChildren();
      if (refused.retrySeconds === null) {
        trend.stop();
        trendBox.hidden = true;
        session.stop();
        sessionBox.hidden = true;
      }
    },
  });
  const trend = trends(trendBox, id);
  const session = sessions(sessionBox, id);

  return {
    update(event) {
      if (event.tutor_id !== id) return;
      timer ??= setTimeout(() => {
        timer = null;
        void asking.now();
      }, AFTER_EVENT_MS);
    },
    reload: () => void asking.now(),
    stop() {
      clearInterval(ages);
      clearTimeout(timer);
      asking.stop();
      trend.stop();
      session.stop();
    },
  };
}

const panel = (id, title, ...children) => make("section", { class: `panel ${id}`, "aria-labelledby": `${id}-title` }, make("h3", { id: `${id}-title` }, title), ...children);

const FLAGS = { green: ["✓", "green"], red: ["✗", "red"] };
const flagMark = (flag) => (flag ? make("span", { class: `flag ${flag}` }, make("span", { "aria-hidden": "true" }, FLAGS[flag][0]), ` ${FLAGS[flag][1]}`) : null);

/** "churn risk medium, 45 of 100 (3 Nov)" where somebody has predicted it. */
function churn(found) {
  if (!found) return [];
  const level = found.risk_level.toLowerCase();
  return [make("span", { class: "churn" }, `churn risk ${level}, ${found.churn_score} of 100 (${day(instant(found.prediction_date))})`)];
}

function windowsPanel(answer) {
  const names = Object.keys(WINDOWS);
  const flagOf = (name, figure) => answer.windows[name]?.flags?.find((one) => one.figure === figure)?.flag ?? null;
  const row = (label, cell) => make("tr", {}, make("th", { scope: "row" }, label), names.map((name) => make("td", { class: "number" }, answer.windows[name] ? cell(name) : "no figures yet")));
  return panel(
    "windows",
    "Figures",
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures over three windows" },
      make(
        "table",
        { class: "plain" },
        make("caption", { class: "unseen" }, "Figures over the last 7, 30 and 90 days"),
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Figure"), names.map((name) => make("th", { scope: "col", class: "number" }, WINDOWS[name])))),
        make(
          "tbody",
          {},
          row("Tier", (name) => tierMark(answer.windows[name].performance_tier)),
          Object.keys(FIGURES).map((figure) => row(FIGURES[figure].long, (name) => make("span", { class: "flagged" }, withUnit(figure, answer.windows[name][figure]), flagMark(flagOf(name, figure))))),
        ),
      ),
    ),
  );
}

function bounds({ figure, green_bound: green, red_bound: red, more_is_better: more }) {
  const [least, most] = [withUnit(figure, green, true), withUnit(figure, red, true)];
  if (more) return `Green: ${least} or more. Red: less than ${most}.`;
  return `Green: ${green === 0 ? withUnit(figure, 0, true) : `${least} or less`}. Red: more than ${most}.`;
}

function whyPanel(answer) {
  const month = answer.windows["30day"];
  if (!month) return panel("why", "Why this tier", make("p", {}, "There are no 30-day figures yet, so there is no tier."));
  const count = (flag) => month.flags.filter((one) => one.flag === flag).length;
  const tier = answer.performance_tier;
  const lines = month.flags.map((one) =>
    make(
      "li",
      {},
      make("span", { class: "what" }, FIGURES[one.figure]?.long ?? one.figure),
      make("span", { class: "how" }, withUnit(one.figure, one.value)),
      flagMark(one.flag) ?? make("span", { class: "flag none" }, one.value === null ? "no data" : "in between"),
      make("span", { class: "bounds" }, bounds(one)),
    ),
  );
  return panel(
    "why",
    "Why this tier",
    make("p", {}, make("strong", {}, `${count("green")} green, ${count("red")} red`), tier ? ` over 30 days: ${tier} (${TIER_RULES[tier] ?? ""}).` : "."),
    make("ul", { class: "reasons" }, lines),
  );
}

/** Positive: the last week was worse. */
function decline(label, value, unit, digits, [less, more] = ["lower", "higher"]) {
  const size = Math.abs(value ?? 0);
  const text = value === null || value === undefined ? "not enough data" : Number(size.toFixed(digits)) === 0 ? "no change" : `${number(size, digits)}${unit} ${value > 0 ? less : more}`;
  const way = !value ? "same" : value > 0 ? "down" : "up";
  return make("div", {}, make("dt", {}, label), make("dd", { class: `way ${way}` }, text));
}

function weekPanel({ declines_7day_vs_30day: lost }) {
  if (!lost) return panel("week", "Last week against 30 days", make("p", {}, "Not known: it needs live figures of both windows."));
  const share = lost.sessions_per_week_frac === null ? null : lost.sessions_per_week_frac * 100;
  return panel(
    "week",
    "Last week against 30 days",
    make(
      "dl",
      { class: "lost" },
      decline("Average rating", lost.avg_rating_stars, " stars", 2),
      decline("Engagement", lost.engagement_score_pct, " percentage points", 1),
      decline("Scheduled sessions", lost.sessions_per_week, " sessions a week", 1, ["fewer", "more"]),
      decline("The same as a share", share, " %", 0, ["fewer", "more"]),
    ),
  );
}
