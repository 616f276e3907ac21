// The stream of events: one connection, handed to whoever listens. It reconnects; it never keeps state.

const FIRST_RETRY_MS = 2_000;
const MOST_RETRY_MS = 60_000;

/**
 * Opens `/events`. `on.state(state)` hears "live", "waiting" or "offline"; `on.metrics`, `on.tier`, `on.alert` and
 * `on.reset` hear the events. `on.refused()` is called when the server would not open the stream, before the next attempt.
 */
export function listen(on) {
  let source = null;
  let timer = null;
  let wait = FIRST_RETRY_MS;
  const away = () => on.state(navigator.onLine ? "waiting" : "offline");

  function open() {
    clearTimeout(timer);
    source?.close();
    source = new EventSource("/events");
    source.addEventListener("open", () => {
      wait = FIRST_RETRY_MS;
      on.state("live");
    });
    source.addEventListener("error", () => {
      away();
      if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects by itself
      on.refused();
      timer = setTimeout(open, wait);
      wait = Math.min(wait * 2, MOST_RETRY_MS);
    });
    for (const name of ["metrics", "tier", "alert", "reset"]) {
      source.addEventListener(name, (event) => {
        let data;
        try {
          data = JSON.parse(event.data);
        } catch {
          return; // a broken event is no reason to lose the others
        }
        on[name](data);
      });
    }
  }

  addEventListener("online", open);
  addEventListener("offline", away);
  away();
  open();
  return {
    stop() {
      removeEventListener("online", open);
      removeEventListener("offline", away);
      clearTimeout(timer);
      source.close();
    },
  };
}
