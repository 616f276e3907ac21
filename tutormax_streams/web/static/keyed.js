// Lists that are refreshed in place: nothing is taken out that stays, so nothing flickers and no focus is lost.

/** Gives `parent` a child for each item, in order. `key(item, at)` tells them apart, `create(item)` makes one, `update(child, item)` brings it up to date. */
export function keyed(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const [place, item] of items.entries()) {
    const name = String(key(item, place));
    let child = known.get(name);
    known.delete(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
  for (const gone of known.values()) gone.remove();
}
