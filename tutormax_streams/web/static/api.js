// Asking the server, and asking again. It never decides what to show.
import { learnClock } from "./words.js";

/** A refusal. `status` 0: nobody answered. `retrySeconds` null: asking again is no use. */
export class Refused extends Error {
  constructor(status, message, retrySeconds) {
    super(message);
    this.status = status;
    this.retrySeconds = retrySeconds;
  }

  get title() {
    if (this.status === 0) return navigator.onLine ? "The server cannot be reached" : "This computer is offline";
    if (this.status === 403) return "You may not see this";
    if (this.status === 404) return "Not found";
    if (this.status === 429) return "Too many requests";
    return this.status >= 500 ? "The server cannot answer now" : "The server refuses";
  }
}

const TIMEOUT_MS = 15_000;
const USUAL_RETRY_SECONDS = 5;

async function send(path, { signal, ...options } = {}) {
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.any(signals), credentials: "same-origin" });
  } catch (failure) {
    if (signal?.aborted) throw failure;
    throw new Refused(0, "", USUAL_RETRY_SECONDS);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const after = Number(response.headers.get("Retry-After")) || USUAL_RETRY_SECONDS;
  const again = response.status === 429 || response.status >= 500;
  const said = typeof body.error === "string" ? body.error : response.statusText;
  if (response.status === 401 && path !== "/session") document.dispatchEvent(new CustomEvent("signed-out"));
  throw new Refused(response.status, said, again ? Math.min(Math.max(after, 1), 300) : null);
}

export async function get(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== "");
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  const response = await send(path + query, { signal });
  const body = await response.json().catch(() => {
    throw new Refused(502, "the answer is no JSON", USUAL_RETRY_SECONDS);
  });
  learnClock(body.timestamp);
  return body;
}

export const signIn = (token) => send("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
export const signOut = () => send("/session", { method: "DELETE" });
export const tutorPath = (id) => `/tutors/${encodeURIComponent(id)}`;

/**
 * Asks until stopped: `ask(signal)`, then `show(answer)` and again after `everySeconds` (null: once is enough); after a
 * refusal `fail(refused)` and again when the server said so. `now()` asks at once, `stop()` ends it.
 */
export function keepAsking({ ask, show, fail, everySeconds = null }) {
  let timer = null;
  let running = null;
  const later = (seconds) => {
    clearTimeout(timer);
    timer = seconds === null ? null : setTimeout(now, seconds * 1000);
  };
  async function now() {
    running?.abort();
    const mine = (running = new AbortController());
    clearTimeout(timer);
    try {
      const answer = await ask(mine.signal);
      if (mine.signal.aborted) return;
      later(everySeconds);
      show(answer);
    } catch (failure) {
      if (mine.signal.aborted) return;
      if (!(failure instanceof Refused)) throw failure;
      if (failure.status === 401) return; // the sign-in form is up
      later(failure.retrySeconds);
      fail(failure);
    }
  }
  const back = () => void now();
  addEventListener("online", back);
  void now();
  return {
    now,
    stop() {
      removeEventListener("online", back);
      running?.abort();
      clearTimeout(timer);
    },
  };
}
