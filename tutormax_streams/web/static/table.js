// The table of tutors: the server sorts, searches and pages; events change the rows that are loaded, where they stand.
import { get, keepAsking, tutorPath } from "./api.js";
import { tierMark } from "./changes.js";
import { announce, byId, make, setText } from "./dom.js";
import { empty, loading, refusal } from "./notice.js";
import { FIGURES, TIERS, WINDOWS, ageSeconds, bare, duration } from "./words.js";

const PAGE = 100;
const TYPING_MS = 300;
const SHOW_EVERY_MS = 500;
const LIT_MS = 2_500;
const AGES_EVERY_MS = 5_000;
const SORT_AGAIN_MS = 30_000;
const USUAL = { sort: "tutor_name", window: "30day", tier: null, search: "" };

/** `query`: the address's parameters; `onTier(tier|null)` hears which tier is filtered by. */
export function tutorTable(query, onTier) {
  const wanted = {
    sort: sortable(query.get("sort")) ? query.get("sort") : USUAL.sort,
    window: query.get("window") in WINDOWS ? query.get("window") : USUAL.window,
    tier: TIERS.includes(query.get("tier")) ? query.get("tier") : null,
    search: query.get("search") ?? "",
  };
  const rows = new Map(); // tutor_id -> row
  const events = new Map(); // tutor_id -> the newest event not yet shown
  let cursor = null;
  let asking = null;
  let stale = 0;
  let timer = null;

  const body = make("tbody", { role: "rowgroup" });
  const heads = headCells(sortBy);
  const caption = make("caption", {});
  const grid = make(
    "table",
    { class: "tutors", role: "table" },
    caption,
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads.map((head) => head.cell))),
    body,
  );
  const status = make("div", { class: "under" });
  const more = make("button", { type: "button", class: "more", hidden: true, onclick: () => load(false) }, "Load more");
  const again = make("button", { type: "button", class: "again", hidden: true, onclick: () => reload() });
  byId("tutors").replaceChildren(again, make("div", { class: "scroll" }, grid), status, more);
  const controls = filters(wanted, () => changed());

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

  function load(first) {
    asking?.stop();
    more.disabled = true;
    if (!rows.size) {
      status.replaceChildren(loading("Loading tutors …"));
      grid.hidden = true;
    }
    grid.setAttribute("aria-busy", "true");
    const parameters = { ...wanted, limit: first ? Math.min(Math.max(rows.size, PAGE), 500) : PAGE, cursor: first ? null : cursor };
    asking = keepAsking({
      ask: (signal) => get("/tutors", parameters, signal),
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
      rows.clear();
      body.replaceChildren();
      outdated(0);
    }
    const added = [];
    for (const tutor of answer.tutors) {
      if (rows.has(tutor.tutor_id)) continue; // it moved between two pages
      const row = tutorRow(tutor);
      rows.set(tutor.tutor_id, row);
      added.push(row.element);
    }
    body.append(...added);
    cursor = answer.next_cursor;
    more.hidden = cursor === null;
    more.disabled = false;
    grid.setAttribute("aria-busy", "false");
    grid.hidden = rows.size === 0;
    const shown = `${rows.size.toLocaleString("en")} ${rows.size === 1 ? "tutor" : "tutors"}${cursor ? " shown, there are more" : ""}`;
    setText(caption, `${shown}. Figures over ${WINDOWS[wanted.window]}.`);
    if (keyboard) rows.get(keyboard)?.element.querySelector("a").focus();
    const filtered = wanted.tier || wanted.search;
    status.replaceChildren();
    if (!rows.size && filtered) status.replaceChildren(empty("No tutor matches", "Change the search or the tier."));
    else if (!rows.size) status.replaceChildren(empty("No tutors yet", "They appear here once the first figures are stored."));
    if (!first || filtered) announce(`${shown}.`);
  }

  function outdated(count) {
    stale = count;
    again.hidden = !stale;
    setText(again, stale ? "Figures have changed since this order. Sort again" : "");
  }

  function showEvents() {
    timer = null;
    let moved = 0;
    for (const [id, event] of events) {
      const row = rows.get(id);
      const figures = event.windows?.[wanted.window];
      if (!row || !figures) continue;
      const names = row.update({ ...figures, tutor_name: event.tutor_name, as_of: event.as_of });
      const leaves = wanted.tier && figures.performance_tier !== wanted.tier;
      if (names.includes(wanted.sort.replace(/^-/, "")) || leaves) moved += 1;
    }
    events.clear();
    if (moved) outdated(stale + moved);
  }

  const ages = setInterval(() => {
    if (byId("overview").hidden || document.hidden) return;
    for (const row of rows.values()) row.age();
  }, AGES_EVERY_MS);
  /** On a wall nobody presses the button: while nobody works in the table, its first page sorts itself again. */
  const sorting = setInterval(() => {
    const busy = byId("tutors").contains(document.activeElement) || byId("tutors").matches(":hover") || scrollY > innerHeight;
    if (stale && !busy && !document.hidden && rows.size <= PAGE) reload();
  }, SORT_AGAIN_MS);

  reload();
  return {
    reload,
    visible: address,
    setTier(tier) {
      wanted.tier = tier;
      wanted.window = "30day"; // the bars count the 30-day tiers
      changed();
    },
    update(event) {
      if (!rows.has(event.tutor_id)) return;
      events.set(event.tutor_id, event);
      timer ??= setTimeout(showEvents, SHOW_EVERY_MS);
    },
    stop() {
      asking?.stop();
      controls.stop();
      clearTimeout(timer);
      clearInterval(ages);
      clearInterval(sorting);
    },
  };
}

function sortable(sort) {
  const key = (sort ?? "").replace(/^-/, "");
  return key in FIGURES || key === "tutor_name" || key === "tutor_id";
}

function headCells(sortBy) {
  const cell = (key, label, unit) => {
    const button = make("button", { type: "button", onclick: () => sortBy(key) }, make("span", {}, label), make("span", { class: "order", "aria-hidden": "true" }));
    const small = unit ? make("span", { class: "unit" }, unit) : null;
    return { key, cell: make("th", { scope: "col", role: "columnheader", class: key in FIGURES ? "number" : null, "aria-sort": "none" }, button, small) };
  };
  const plain = (label, unit, kind) => ({ key: null, cell: make("th", { scope: "col", role: "columnheader", class: kind }, make("span", { class: "label" }, label), unit && make("span", { class: "unit" }, unit)) });
  return [
    cell("tutor_name", "Tutor", "name and id"),
    plain("Tier", "of this window", null),
    ...Object.entries(FIGURES).map(([key, { label, unit }]) => cell(key, label, unit)),
    plain("Age", "of the figures", "number"),
  ];
}

/** One tutor's row. `update` returns the names of what differs and lights those cells up for a moment. */
function tutorRow(tutor) {
  const name = make("a", { href: `#${tutorPath(tutor.tutor_id).replace("/tutors/", "/tutor/")}` }, tutor.tutor_name || tutor.tutor_id);
  const id = make("span", { class: "id" }, tutor.tutor_id, tutor.tutor_status && tutor.tutor_status !== "active" ? ` · ${tutor.tutor_status}` : "");
  const tier = make("td", { role: "cell", class: "tier-cell" }, tierMark(tutor.performance_tier));
  const cells = Object.fromEntries(
    Object.keys(FIGURES).map((figure) => [figure, make("td", { role: "cell", class: "number", "data-label": `${FIGURES[figure].label}, ${FIGURES[figure].unit}` }, bare(figure, tutor[figure]))]),
  );
  const age = make("td", { role: "cell", class: "number age-cell", "data-label": "Age" }, duration(ageSeconds(tutor.as_of)));
  const element = make("tr", { role: "row", "data-id": tutor.tutor_id }, make("th", { scope: "row", role: "rowheader" }, name, id), tier, ...Object.values(cells), age);
  let asOf = tutor.as_of;
  let currentTier = tutor.performance_tier;

  function light(cell) {
    if (cell.classList.contains("lit")) return; // beginning again would cost a layout for each cell
    cell.classList.add("lit");
    setTimeout(() => cell.classList.remove("lit"), LIT_MS);
  }

  return {
    element,
    age: () => setText(age, duration(ageSeconds(asOf))),
    update(next) {
      const names = [];
      for (const [figure, cell] of Object.entries(cells)) {
        const text = bare(figure, next[figure]);
        if (cell.textContent === text) continue;
        cell.textContent = text;
        names.push(figure);
        light(cell);
      }
      if (next.performance_tier !== currentTier) {
        currentTier = next.performance_tier;
        tier.replaceChildren(tierMark(currentTier));
        light(tier);
      }
      if (next.tutor_name) setText(name, next.tutor_name);
      asOf = next.as_of;
      setText(age, duration(ageSeconds(asOf)));
      return names;
    },
  };
}

/** Search, tier, window and (where the table's head is hidden) order. Changes `wanted`, then calls `changed`. */
function filters(wanted, changed) {
  const option = ([value, text]) => make("option", { value }, text);
  const field = (id, label, control, kind) => make("div", { class: `field ${kind ?? ""}` }, make("label", { for: id }, label), control);
  const search = make("input", { id: "search", type: "search", placeholder: "Name or id", autocomplete: "off", maxlength: "100" });
  const tier = make("select", { id: "tier" }, [["", "All tiers"], ...TIERS.map((name) => [name, name])].map(option));
  const span = make("select", { id: "window" }, Object.entries(WINDOWS).map(option));
  const orders = [["tutor_name", "Name"], ...Object.entries(FIGURES).flatMap(([key, { label }]) => [[`-${key}`, `${label}, highest first`], [key, `${label}, lowest first`]])];
  const sort = make("select", { id: "sort" }, [...orders, ["-tutor_name", "Name, Z first"], ["tutor_id", "Id"], ["-tutor_id", "Id, last first"]].map(option));
  let typing = null;
  const set = (name, value) => {
    wanted[name] = value;
    changed();
  };
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => set("search", search.value.trim()), TYPING_MS);
  });
  tier.addEventListener("change", () => set("tier", tier.value || null));
  span.addEventListener("change", () => set("window", span.value));
  sort.addEventListener("change", () => set("sort", sort.value));
  const form = byId("filters");
  form.onsubmit = (event) => event.preventDefault();
  form.replaceChildren(field("search", "Search", search), field("tier", "Tier", tier), field("window", "Figures over", span), field("sort", "Order", sort, "phone"));
  return {
    show() {
      if (document.activeElement !== search) search.value = wanted.search;
      tier.value = wanted.tier ?? "";
      span.value = wanted.window;
      sort.value = wanted.sort;
    },
    stop: () => clearTimeout(typing),
  };
}
