// The head of the table of tutors, and a row of it.
import { tutorPath } from "./api.js";
import { tierMark } from "./changes.js";
import { make, setText } from "./dom.js";
import { FIGURES, ageSeconds, bare, duration } from "./words.js";

const LIT_MS = 2_500;

/** Cells of the head, with the key that each sorts by (null: none). */
export function headCells(sortBy) {
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

/** What the event `next` changes of `tutor`, taken over: the names of the figures that read differently now. */
export function takeOver(tutor, next) {
  const names = Object.keys(FIGURES).filter((figure) => bare(figure, tutor[figure]) !== bare(figure, next[figure]));
  const name = next.tutor_name || tutor.tutor_name;
  Object.assign(tutor, next, { tutor_name: name });
  return names;
}

/** One tutor's row. `show` writes what changed of the same tutor and lights those cells up for a moment. */
export function tutorRow(tutor) {
  const name = make("a", { href: `#${tutorPath(tutor.tutor_id).replace("/tutors/", "/tutor/")}` }, tutor.tutor_name || tutor.tutor_id);
  const id = make("span", { class: "id" }, tutor.tutor_id, tutor.tutor_status && tutor.tutor_status !== "active" ? ` · ${tutor.tutor_status}` : "");
  const tier = make("td", { role: "cell", class: "tier-cell" }, tierMark(tutor.performance_tier));
  const cells = Object.fromEntries(
    Object.keys(FIGURES).map((figure) => [figure, make("td", { role: "cell", class: "number", "data-figure": figure, "data-label": `${FIGURES[figure].label}, ${FIGURES[figure].unit}` }, bare(figure, tutor[figure]))]),
  );
  const age = make("td", { role: "cell", class: "number age-cell", "data-label": "Age" }, duration(ageSeconds(tutor.as_of)));
  const element = make("tr", { role: "row", "data-id": tutor.tutor_id }, make("th", { scope: "row", role: "rowheader" }, name, id), tier, ...Object.values(cells), age);
  let tierShown = tutor.performance_tier;

  function light(cell) {
    if (cell.classList.contains("lit")) return; // beginning again would cost a layout for each cell
    cell.classList.add("lit");
    setTimeout(() => cell.classList.remove("lit"), LIT_MS);
  }

  return {
    element,
    age: () => setText(age, duration(ageSeconds(tutor.as_of))),
    focus: () => name.focus(),
    show(names) {
      for (const figure of names) {
        setText(cells[figure], bare(figure, tutor[figure]));
        light(cells[figure]);
      }
      if (tutor.performance_tier !== tierShown) {
        tierShown = tutor.performance_tier;
        tier.replaceChildren(tierMark(tierShown));
        light(tier);
      }
      setText(name, tutor.tutor_name || tutor.tutor_id);
      setText(age, duration(ageSeconds(tutor.as_of)));
    },
  };
}
