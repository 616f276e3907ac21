// Alerts as they happen, newest first. What is well again is struck out.
import { announce, byId, make, setText } from "./dom.js";
import { clock, instant } from "./words.js";

const MOST_SHOWN = 50;
const SEVERITIES = { critical: ["!", "Critical"], warning: ["▼", "Warning"], info: ["●", "Info"] };
const CLEARED = ["✓", "Cleared"];

export function alerts() {
  const list = byId("alerts");
  const since = clock(new Date());
  let shown = []; // newest first: { event, element }
  let fresh = [];
  let count = 0;
  let frame = null;
  hint();

  function hint() {
    setText(byId("alerts-hint"), count ? `${count.toLocaleString("en")} since ${since}, as they happen` : "No alerts since this page was opened.");
  }

  function show() {
    frame = null;
    for (const event of fresh) {
      if (event.kind === "alert.cleared") strike(event);
      shown.unshift({ event, element: line(event) });
      list.prepend(shown[0].element);
    }
    fresh = [];
    for (const { element } of shown.splice(MOST_SHOWN)) element.remove();
    hint();
  }

  /** The raised ones that this clears. */
  function strike({ tutor_id: id, figure }) {
    for (const one of shown) {
      const { kind, tutor_id: whose, figure: about } = one.event;
      if (kind !== "alert.raised" || whose !== id || about !== figure || one.isOver) continue;
      one.isOver = true;
      one.element.replaceWith((one.element = line(one.event, true)));
    }
  }

  return {
    add(event) {
      if (shown.some((one) => one.event.id === event.id) || fresh.some(({ id }) => id === event.id)) return; // told twice
      count += 1;
      fresh.push(event);
      const [, word] = signOf(event);
      announce(`${word}. ${event.tutor_name || event.tutor_id}: ${event.title}.`);
      frame ??= requestAnimationFrame(show);
    },
  };
}

const signOf = ({ kind, severity }) => (kind === "alert.cleared" ? CLEARED : SEVERITIES[severity] ?? SEVERITIES.info);

function line(event, isOver = false) {
  const at = instant(event.at);
  const [sign, word] = signOf(event);
  const kind = event.kind === "alert.cleared" ? "cleared" : event.severity in SEVERITIES ? event.severity : "info";
  const title = make(isOver ? "s" : "span", { class: "title" }, event.title);
  return make(
    "li",
    { class: `alert ${kind}${isOver ? " over" : ""}` },
    make(
      "a",
      { href: `#/tutor/${encodeURIComponent(event.tutor_id)}` },
      make("span", { class: "severity" }, make("span", { "aria-hidden": "true" }, `${sign} `), word),
      " ",
      make("span", { class: "name" }, event.tutor_name || event.tutor_id),
      " ",
      make("time", { datetime: at.toISOString() }, clock(at)),
      " ",
      make("span", { class: "said" }, title, isOver ? " (well again). " : ". ", make("span", { class: "message" }, event.message)),
    ),
  );
}
