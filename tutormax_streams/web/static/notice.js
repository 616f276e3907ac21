// What is said in place of figures: loading, nothing there, refused.
import { make, setText } from "./dom.js";

export const loading = (text) => make("p", { class: "notice quiet" }, text);
export const empty = (title, text) => make("div", { class: "notice" }, make("p", { class: "strong" }, title), make("p", {}, text));

/** A refusal, with the server's words and a countdown to the next attempt. `again`: what the button does. */
export function refusal(refused, again = null) {
  const wait = make("p", {});
  const says = refused.message && refused.status !== 0 ? make("p", {}, `The server says: ${refused.message}`) : null;
  const button = again && refused.retrySeconds !== null ? make("button", { type: "button", onclick: again }, "Try now") : null;
  const box = make("div", { class: "notice error" }, make("p", { class: "strong" }, refused.title), says, wait, button);
  if (refused.retrySeconds === null) {
    wait.remove();
    return box;
  }
  const due = Date.now() + refused.retrySeconds * 1000;
  const tick = () => {
    const left = Math.ceil((due - Date.now()) / 1000);
    setText(wait, left > 0 ? `Trying again in ${left} s.` : "Trying again …");
    if (left > 0 && (box.isConnected || left === refused.retrySeconds)) setTimeout(tick, 1000);
  };
  tick();
  return box;
}
