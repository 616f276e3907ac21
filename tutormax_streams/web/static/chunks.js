// A long table in pieces: only those near the screen are in the document, the others are a gap of the same height.
import { make } from "./dom.js";

const SIZE = 50;
const NEAR = "500px 0px";
const AT_FIRST = 1; // pieces built at once; what lies further down is built when it comes near

/**
 * Hangs rows into `grid`, a table. `build(item)` makes a row: `element`, and whatever the caller wants of it. At most some
 * pieces of `SIZE` rows are built at a time, however many items there are.
 */
export function chunks(grid, build) {
  let pieces = [];
  let count = 0;
  let rowHeight = 49; // pixels; measured where a piece was folded
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting, boundingClientRect: { height } } of entries) {
        const piece = pieces.find(({ body }) => body === target);
        if (!piece) continue;
        if (isIntersecting) raise(piece);
        else if (height > 0 && piece.rows) {
          rowHeight = height / piece.items.length; // without a height the whole table is hidden
          fold(piece);
        }
      }
    },
    { rootMargin: NEAR },
  );

  function piece() {
    const made = { body: make("tbody", { role: "rowgroup" }), items: [], rows: null, from: count };
    pieces.push(made);
    grid.append(made.body);
    near.observe(made.body);
    return made;
  }

  function line(piece, item, index) {
    const row = build(item);
    row.element.setAttribute("aria-rowindex", String(piece.from + index + 2)); // the head is the first
    return row;
  }

  function raise(piece) {
    if (piece.rows) return;
    piece.rows = new Map(piece.items.map((item, index) => [item.tutor_id, line(piece, item, index)]));
    piece.body.removeAttribute("aria-hidden");
    piece.body.replaceChildren(...[...piece.rows.values()].map(({ element }) => element));
  }

  function fold(piece) {
    if (piece === pieces[0]) return; // a reader of screens must find rows even while the table is far away
    if (piece.body.contains(document.activeElement)) return; // the keyboard stands in it
    piece.rows = null;
    const gap = make("tr", { class: "gap", role: "row" }, make("td", { role: "cell" }));
    gap.firstChild.style.height = `${piece.items.length * rowHeight}px`;
    piece.body.setAttribute("aria-hidden", "true");
    piece.body.replaceChildren(gap);
  }

  return {
    clear() {
      near.disconnect();
      for (const { body } of pieces) body.remove();
      pieces = [];
      count = 0;
    },
    add(items) {
      const before = pieces.length;
      for (const item of items) {
        let last = pieces.at(-1);
        if (!last || last.items.length === SIZE) last = piece();
        last.items.push(item);
        count += 1;
        if (last.rows) {
          const row = line(last, item, last.items.length - 1);
          last.rows.set(item.tutor_id, row);
          last.body.append(row.element);
        }
      }
      pieces.slice(before, before + AT_FIRST).forEach(raise);
      pieces.slice(before + AT_FIRST).forEach(fold);
    },
    /** The row of a tutor, if it is built. */
    row(id) {
      for (const { rows } of pieces) if (rows?.has(id)) return rows.get(id);
      return null;
    },
    built: () => pieces.flatMap(({ rows }) => (rows ? [...rows.values()] : [])),
    /** Its row, built if it was not. */
    reach(id) {
      const found = pieces.find(({ items }) => items.some(({ tutor_id: one }) => one === id));
      if (!found) return null;
      raise(found);
      return found.rows.get(id);
    },
    stop: () => near.disconnect(),
  };
}
