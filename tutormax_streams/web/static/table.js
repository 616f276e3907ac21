// The table of tutors: the server sorts, searches and pages; events change what is loaded, where it stands.
import { get, keepAsking } from "./api.js";
import { chunks } from "./chunks.js";
import { announce, byId, make, setText } from "./dom.js";
import { filters } from "./filters.js";
import { empty, loading, refusal } from "./notice.js";
import { headCells, takeOver, tutorRow } from "./rows.js";
import { FIGURES, TIERS, WINDOWS } from "./words.js";

const PAGE = 100;
const MOST_AT_ONCE = 500;
const AGES_EVERY_MS = 5_000;
const AGES_IN_STEPS = 20;
const SORT_AGAIN_MS = 30_000;
const EMPTY_AGAIN_MS = 5_000; // the first tutors are told before they are stored
const AHEAD = "0px 0px 600px 0px"; // the next page is asked for before its place is reached
const USUAL = { sort: "tutor_name", window: "30day", tier: null, search: "" };

/** `query`: the address's parameters; `onTier(tier|null)` hears which tier is filtered by. */
export function tutorTable(query, onTier) {
  const wanted = {
    sort: sortable(query.get("sort")) ? query.get("sort") : USUAL.sort,
    window: query.get("window") in WINDOWS ? query.get("window") : USUAL.window,
    tier: TIERS.includes(query.get("tier")) ? query.get("tier") : null,
    search: query.get("search") ?? "",
  };
  const tutors = new Map(); // tutor_id -> what the server or the newest event said
  const events = new Map(); // tutor_id -> the newest event not yet shown
  const newcomers = new Map(); // tutor_id that the list does not have -> when to say so again, and the pause after that
  let cursor = null;
  let asking = null;
  let stale = 0;
  let frame = null;
  let firstOnes = null;

  const heads = headCells(sortBy);
  const caption = make("caption", {});
  const grid = make(
    "table",
    { class: "tutors", role: "table" },
    caption,
    make("thead", { role: "rowgroup" }, make("tr", { role: "row", "aria-rowindex": "1" }, heads.map((head) => head.cell))),
  );
  const rows = chunks(grid, tutorRow);
  const status = make("div", { class: "under" });
  const more = make("button", { type: "button", class: "more", hidden: true, onclick: () => load(false) }, "Load more");
  const again = make("button", { type: "button", class: "again", hidden: true, onclick: () => reload() });
  byId("tutors").replaceChildren(again, make("div", { class: "scroll" }, grid), status, more);
  const controls = filters(wanted, () => changed());
  const end = new IntersectionObserver(
    (entries) => {
      if (entries.at(-1).isIntersecting && !more.disabled) load(false); // several may come at once: the last is true now
    },
    { rootMargin: AHEAD },
  );

  function sortBy(key) {
    wanted.sort = wanted.sort === key ? `-${key}` : wanted.sort === `-${key}` ? key : key in FIGURES ? `-${key}` : key;
    changed();
  }

  function changed() {
    address();
    reload();
  }

  /** The address holds what is asked for, so that a link or a reload brings it back. */
  function address() {
    const set = Object.entries(wanted).filter(([name, value]) => value && value !== USUAL[name]);
    history.replaceState(null, "", `#/${set.length ? `?${new URLSearchParams(set)}` : ""}`);
  }

  function reload() {
    for (const { cell, key } of heads) {
      const order = wanted.sort === key ? "ascending" : wanted.sort === `-${key}` ? "descending" : "none";
      cell.setAttribute("aria-sort", order);
    }
    controls.show(wanted);
    onTier(wanted.window === "30day" ? wanted.tier : null);
    load(true);
  }

  function load(first, quietly = false) {
    clearTimeout(firstOnes);
    asking?.stop();
    end.disconnect();
    more.disabled = true;
    if (!tutors.size && !quietly) {
      status.replaceChildren(loading("Loading tutors …"));
      grid.hidden = true;
    }
    grid.setAttribute("aria-busy", "true");
    const limit = first ? Math.min(Math.max(tutors.size, PAGE), MOST_AT_ONCE) : PAGE;
    asking = keepAsking({
      ask: (signal) => get("/tutors", { ...wanted, limit, cursor: first ? null : cursor }, signal),
      show: (answer) => answered(answer, first),
      fail(refused) {
        grid.setAttribute("aria-busy", "false");
        status.replaceChildren(refusal(refused, () => asking.now()));
        more.disabled = false;
      },
    });
  }

  function answered(answer, first) {
    const keyboard = first ? document.activeElement?.closest?.("tr")?.dataset.id : null;
    if (first) {
      tutors.clear();
      rows.clear();
      outdated(0);
    }
    const added = answer.tutors.filter(({ tutor_id: id }) => !tutors.has(id)); // one may have moved between two pages
    for (const tutor of added) {
      tutors.set(tutor.tutor_id, tutor);
      newcomers.delete(tutor.tutor_id);
    }
    rows.add(added);
    cursor = answer.next_cursor;
    more.hidden = cursor === null;
    more.disabled = false;
    if (cursor !== null) end.observe(more);
    grid.setAttribute("aria-busy", "false");
    grid.setAttribute("aria-rowcount", String(cursor === null ? tutors.size + 1 : -1));
    grid.hidden = tutors.size === 0;
    const shown = `${tutors.size.toLocaleString("en")} ${tutors.size === 1 ? "tutor" : "tutors"}${cursor ? " loaded, there are more" : ""}`;
    setText(caption, `${shown}. Figures over ${WINDOWS[wanted.window]}.`);
    if (keyboard) rows.row(keyboard)?.focus();
    const filtered = wanted.tier || wanted.search;
    status.replaceChildren();
    if (!tutors.size && filtered) status.replaceChildren(empty("No tutor matches", "Change the search or the tier."));
    else if (!tutors.size) {
      status.replaceChildren(empty("No tutors yet", "They appear here once the first figures are stored."));
      firstOnes = setTimeout(() => load(true, true), EMPTY_AGAIN_MS);
    }
    if (!first || filtered) announce(`${shown}.`);
  }

  function outdated(count) {
    stale = count;
    again.hidden = !stale;
    setText(again, stale ? "Figures have changed since this order. Sort again" : "");
  }

  /** Once for each frame, however many came; in a hidden tab there are no frames, and the newest of each tutor waits. */
  function showEvents() {
    frame = null;
    let moved = 0;
    for (const [id, event] of events) {
      const tutor = tutors.get(id);
      const figures = event.windows?.[wanted.window];
      if (!tutor || !figures) continue;
      const names = takeOver(tutor, { ...figures, tutor_name: event.tutor_name, as_of: event.as_of });
      rows.row(id)?.show(names);
      const leaves = wanted.tier && figures.performance_tier !== wanted.tier;
      if (names.includes(wanted.sort.replace(/^-/, "")) || leaves) moved += 1;
    }
    events.clear();
    if (moved) outdated(stale + moved);
  }

  /** A few rows at a time: all at once would be a hitch that one sees. */
  let aging = 0;
  const ages = setInterval(() => {
    if (byId("overview").hidden || document.hidden) return;
    const built = rows.built();
    const some = Math.ceil(built.length / AGES_IN_STEPS);
    aging = aging < built.length ? aging : 0;
    for (const row of built.slice(aging, aging + some)) row.age();
    aging += some;
  }, AGES_EVERY_MS / AGES_IN_STEPS);
  /** On a wall nobody presses the button: while nobody works in the table, its first page sorts itself again. */
  const sorting = setInterval(() => {
    const busy = byId("tutors").contains(document.activeElement) || byId("tutors").matches(":hover") || scrollY > innerHeight;
    if (stale && !busy && !document.hidden && tutors.size <= PAGE) reload();
  }, SORT_AGAIN_MS);

  reload();
  return {
    reload,
    visible: address,
    /** Puts the keyboard on a tutor's row, if it is loaded. */
    focus: (id) => rows.reach(id)?.focus(),
    setTier(tier) {
      wanted.tier = tier;
      wanted.window = "30day"; // the bars count the 30-day tiers
      changed();
    },
    update(event) {
      if (!tutors.has(event.tutor_id)) {
        // A newcomer. One whose row cannot be written yet will be missing after a reload, too: told of ever more rarely.
        const isNews = cursor === null && tutors.size && !wanted.tier && !wanted.search;
        const { due, pause } = newcomers.get(event.tutor_id) ?? { due: 0, pause: 1000 };
        if (isNews && performance.now() >= due) {
          newcomers.set(event.tutor_id, { due: performance.now() + pause, pause: 2 * pause });
          outdated(stale + 1);
        }
        return;
      }
      events.set(event.tutor_id, event);
      frame ??= requestAnimationFrame(showEvents);
    },
    stop() {
      clearTimeout(firstOnes);
      asking?.stop();
      controls.stop();
      rows.stop();
      end.disconnect();
      cancelAnimationFrame(frame);
      clearInterval(ages);
      clearInterval(sorting);
    },
  };
}

function sortable(sort) {
  const key = (sort ?? "").replace(/^-/, "");
  return key in FIGURES || key === "tutor_name" || key === "tutor_id";
}
