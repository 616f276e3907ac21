// Building elements. Texts become text nodes and attributes are set by name, so no text from the server is ever markup.

/** An element: `make("a", {href: "#/", class: "x"}, "text", child)`. Null and false children and attributes are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets the text only where it differs, so that screen readers and layout are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const SPOKEN_EVERY_MS = 10_000;
let waiting = [];
let timer = null;

/** Says `text` politely; of many within ten seconds the newest is said, and how many more there were. */
export function announce(text) {
  waiting.push(text);
  if (timer === null) timer = setTimeout(speak, 600);
}

function speak() {
  timer = null;
  if (!waiting.length) return;
  const more = waiting.length - 1;
  byId("spoken").replaceChildren(make("p", {}, more ? `${waiting.at(-1)} And ${more} more.` : waiting[0]));
  waiting = [];
  timer = setTimeout(speak, SPOKEN_EVERY_MS);
}
