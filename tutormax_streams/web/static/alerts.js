// Alerts as they happen, newest first, above those that stood when the page was opened. What is well again is struck out.
import { announce, byId, make, setText } from "./dom.js";
import { clock, day, instant } from "./words.js";

const MOST_SHOWN = 50;
const SEVERITIES = { critical: ["!", "Critical"], warning: ["▼", "Warning"], info: ["●", "Info"] };
const DAY_MS = 86_400_000;
const CLEARED = ["✓", "Cleared"];

export function alerts() {
  const list = byId("alerts");
  const since = clock(new Date());
  let shown = []; // newest first: { event, element }
  let fresh = [];
  let count = 0;
  let stood = "";
  let asked = new Set(); // ids of what was shown when the server was last asked what stands
  let frame = null;
  hint();

  function hint() {
    const live = count ? `${count.toLocaleString("en")} since ${since}, as they happen` : "No alerts since this page was opened.";
    setText(byId("alerts-hint"), stood + live);
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
  function strike(cleared) {
    for (const one of shown) if (figureOf(one.event) === figureOf(cleared)) end(one);
  }

  function end(one) {
    if (one.event.kind !== "alert.raised" || one.isOver) return;
    one.isOver = true;
    one.element.replaceWith((one.element = line(one.event, true)));
  }

  return {
    /** The server is being asked what stands. */
    ask() {
      asked = new Set(shown.map(({ event }) => event.id));
    },
    /**
     * What stands, the worst first. What was shown before it was asked for, and of whose figure nothing stands, ended
     * unheard; a warning that became critical is not well again.
     */
    stand({ alerts: standing, total, timestamp }) {
      const figures = new Set(standing.map(figureOf));
      if (standing.length === total) for (const one of shown) if (asked.has(one.event.id) && !figures.has(figureOf(one.event))) end(one);
      const known = new Set([...shown.map(({ event }) => event.id), ...fresh.map(({ id }) => id)]);
      for (const event of standing.filter(({ id }) => !known.has(id)).slice(0, MOST_SHOWN - shown.length)) {
        shown.push({ event, element: line(event) });
        list.append(shown.at(-1).element);
      }
      stood = total ? `${total.toLocaleString("en")} stood at ${clock(instant(timestamp))}. ` : "";
      hint();
    },
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

const figureOf = ({ tutor_id: id, figure }) => `${figure} ${id}`;
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
      make("time", { datetime: at.toISOString() }, Date.now() - at > DAY_MS ? `${day(at)}, ${clock(at)}` : clock(at)),
      " ",
      make("span", { class: "said" }, title, isOver ? " (well again). " : ". ", make("span", { class: "message" }, event.message)),
    ),
  );
}
