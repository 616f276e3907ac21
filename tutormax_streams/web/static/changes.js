// Tier changes, newest first.
import { announce, byId, make, setText } from "./dom.js";
import { TIERS, clock, instant, tierKey } from "./words.js";

const MOST_SHOWN = 60;
const SHOW_EVERY_MS = 400;

export function changes() {
  const list = byId("changes");
  const since = clock(new Date());
  let count = 0;
  let fresh = [];
  let timer = null;
  hint();

  function hint() {
    setText(byId("changes-hint"), count ? `${count.toLocaleString("en")} since ${since}, as they happen` : "No tier has changed since this page was opened.");
  }

  function show() {
    timer = null;
    list.prepend(...fresh.slice(-MOST_SHOWN).reverse().map(line));
    while (list.childElementCount > MOST_SHOWN) list.lastElementChild.remove();
    fresh = [];
    hint();
  }

  return {
    add(event) {
      count += 1;
      fresh.push(event);
      announce(`${event.tutor_name || event.tutor_id}: ${event.old ?? "no tier"} to ${event.new}.`);
      timer ??= setTimeout(show, SHOW_EVERY_MS);
    },
  };
}

export const tierMark = (tier) => make("span", { class: `tier ${tierKey(tier)}` }, tier ?? "No tier yet");

function line(event) {
  const at = instant(event.as_of);
  const rise = event.old === null ? null : TIERS.indexOf(event.new) < TIERS.indexOf(event.old);
  const way = rise === null ? "New" : rise ? "Up" : "Down";
  return make(
    "li",
    {},
    make(
      "a",
      { href: `#/tutor/${encodeURIComponent(event.tutor_id)}` },
      make("span", { class: `way ${way.toLowerCase()}` }, way),
      make("span", { class: "name" }, event.tutor_name || event.tutor_id),
      make("time", { datetime: at.toISOString() }, clock(at)),
      make("span", { class: "step" }, tierMark(event.old), make("span", { class: "unseen" }, " to "), make("span", { class: "to", "aria-hidden": "true" }, "→"), tierMark(event.new)),
    ),
  );
}
