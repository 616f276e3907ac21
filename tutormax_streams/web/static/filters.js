// Search, tier, window and (where the table's head is hidden) order of the table of tutors.
import { byId, make } from "./dom.js";
import { FIGURES, TIERS, WINDOWS } from "./words.js";

const TYPING_MS = 300;

/** Fills the form. Changes `wanted`, then calls `changed`. */
export function filters(wanted, changed) {
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
