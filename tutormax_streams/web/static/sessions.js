// The sessions behind a tutor's figures, the newest first, a page at a time.
import { get, keepAsking, tutorPath } from "./api.js";
import { make } from "./dom.js";
import { loading, refusal } from "./notice.js";
import { WINDOWS, clock, day, instant, number } from "./words.js";

const AT_ONCE = 20;
const REFRESH_SECONDS = 60;
const COLUMNS = [
  ["Start", ({ scheduled_start: at }) => `${day(instant(at))}, ${clock(instant(at))}`],
  ["Subject", ({ subject }) => subject],
  ["What happened", happened],
  ["Rating", ({ overall_rating: stars }) => (stars === null ? "–" : `${stars} of 5`), "number"],
  ["Engagement", ({ engagement_score: score }) => (score === null ? "–" : number(score <= 1 ? score * 100 : score, 0) + " %"), "number"],
  ["Objectives", ({ learning_objectives_met: met }) => (met === null ? "–" : met ? "met" : "missed")],
];

function happened(session) {
  if (session.no_show) return "no-show";
  const parts = [];
  if (session.session_number === 1) parts.push("first session");
  if (session.tutor_initiated_reschedule) parts.push("rescheduled by the tutor");
  if (session.late_start_minutes > 0) parts.push(`${session.late_start_minutes} min late`);
  parts.push(session.actual_start === null ? "not begun" : `${session.duration_minutes} min`);
  return parts.join(", ");
}

export function sessions(box, id) {
  let span = "30day";
  let shownOf = AT_ONCE;
  const content = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of sessions" }, loading("Loading sessions …"));
  const count = make("p", { class: "hint", role: "status" });
  const more = make("button", { type: "button", hidden: true }, "Show more");
  const select = make("select", { id: "session-window" }, Object.entries(WINDOWS).map(([value, text]) => make("option", { value, selected: value === span }, text)));
  box.hidden = false;
  box.replaceChildren(
    make(
      "div",
      { class: "head" },
      make("h3", { id: "sessions-title" }, "Sessions behind the figures"),
      make("div", { class: "field" }, make("label", { for: "session-window" }, "Of the last"), select),
    ),
    count,
    content,
    more,
  );

  function show({ sessions: found, pagination }) {
    count.textContent = pagination.total ? `${number(found.length)} of ${number(pagination.total)} sessions, the newest first.` : "No sessions in this window.";
    more.hidden = !pagination.has_more;
    content.replaceChildren(
      make(
        "table",
        { class: "plain", hidden: !found.length },
        make("caption", { class: "unseen" }, "Sessions, the newest first"),
        make("thead", {}, make("tr", {}, COLUMNS.map(([name, , kind]) => make("th", { scope: "col", class: kind }, name)))),
        make("tbody", {}, found.map((session) => make("tr", {}, COLUMNS.map(([, cell, kind], at) => make(at ? "td" : "th", { scope: at ? null : "row", class: kind }, cell(session)))))),
      ),
    );
  }

  const asking = keepAsking({
    ask: (signal) => get(`${tutorPath(id)}/sessions`, { window: span, limit: shownOf }, signal),
    everySeconds: REFRESH_SECONDS,
    show,
    fail(refused) {
      more.hidden = true;
      content.replaceChildren(refusal(refused, () => asking.now()));
    },
  });
  select.addEventListener("change", () => {
    span = select.value;
    shownOf = AT_ONCE;
    void asking.now();
  });
  more.addEventListener("click", () => {
    shownOf = Math.min(shownOf * 2, 500);
    void asking.now();
  });
  return { stop: () => asking.stop() };
}
