// The composition: who is signed in, which page is shown, and what feeds it.
import { Refused, get, keepAsking, signOut } from "./api.js";
import { alerts } from "./alerts.js";
import { changes } from "./changes.js";
import { byId, make, setText } from "./dom.js";
import { listen } from "./live.js";
import { refusal } from "./notice.js";
import { overview } from "./overview.js";
import { signInForm, tokenFromAddress } from "./signin.js";
import { tutorTable } from "./table.js";
import { tutorPage } from "./tutor.js";
import { ageSeconds, duration } from "./words.js";

const POLL_SECONDS = 10;
const STATES = { live: "Live", waiting: "Connecting", offline: "Offline", polling: "Refreshed every 15 s", out: "Signed out" };
const PARTS = ["waiting", "sign-in", "overview", "tutor"];

let user = null;
let lastUser = null;
let stops = [];
let table = null;
let page = null;
let oldest = null;
let left = null; // how the list stood when a tutor's page was opened, and whose

function show(part) {
  for (const id of PARTS) byId(id).hidden = id !== part;
}

function state(name) {
  byId("connection").dataset.state = name;
  setText(byId("connection").querySelector(".text"), STATES[name]);
}

function banner(...children) {
  byId("banner").replaceChildren(...children);
}

function aged() {
  const text = oldest ? `All figures at most ${duration(ageSeconds(oldest))} old` : "";
  setText(byId("age"), text);
}

function route() {
  if (!user) return;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  if (path === "main") return; // the skip link
  const id = path.startsWith("tutor/") ? decoded(path.slice(6)) : user.is_staff ? null : user.tutor_id;
  if (!byId("overview").hidden) left = { id, scroll: scrollY, from: document.activeElement };
  page?.stop();
  page = null;
  if (id === null && !user.is_staff) {
    show("waiting");
    byId("waiting").replaceChildren(refusal(new Refused(403, "this account belongs neither to staff nor to a tutor", null)));
    return;
  }
  if (id === null) {
    show("overview");
    document.title = "Tutor performance";
    if (!table) startOverview(new URLSearchParams(query));
    table.visible();
    comeBack();
    return;
  }
  show("tutor");
  page = tutorPage(byId("tutor"), id, user.is_staff);
  scrollTo(0, 0);
}

/** From a tutor's page to where the list was left, the keyboard on what opened that page. */
function comeBack() {
  if (!left) return;
  if (left.from?.isConnected && left.from !== document.body) left.from.focus({ preventScroll: true });
  else table.focus(left.id);
  scrollTo(0, left.scroll);
  left = null;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Made when the dashboard is first shown, and kept: its lines begin where the page was opened. */
let top = null;
let feed = null;
let warnings = null;
let standing = null;

function startOverview(query) {
  top ??= overview((tier) => table.setTier(tier));
  feed ??= changes();
  warnings ??= alerts();
  table = tutorTable(query, (tier) => top.select(tier));
  stops.push(table.stop);
  const poll = keepAsking({
    ask: (signal) => get("/dashboard/analytics", {}, signal),
    everySeconds: POLL_SECONDS,
    show(answer) {
      oldest = answer.oldest_as_of;
      aged();
      banner();
      top.answer(answer);
    },
    fail: (refused) => banner(refusal(refused, () => poll.now())),
  });
  stops.push(poll.stop);
  const pulse = keepAsking({
    ask: (signal) => get("/operations/state", {}, signal),
    everySeconds: POLL_SECONDS,
    show: ({ freshness }) => top.flow(freshness.last_minute),
    fail: () => top.flow(null), // the figures of tutors do not depend on it
  });
  stops.push(pulse.stop);
  standing = keepAsking({
    ask(signal) {
      warnings.ask();
      return get("/dashboard/alerts", {}, signal);
    },
    show: (answer) => warnings.stand(answer),
    fail: () => {}, // the banner says so already
  });
  stops.push(standing.stop);
}

function startLive() {
  if (!user.is_staff) {
    state("polling");
    return;
  }
  const live = listen({
    state,
    metrics(event) {
      table?.update(event);
      page?.update(event);
    },
    tier(event) {
      top?.moved(event);
      feed?.add(event);
    },
    alert: (event) => warnings?.add(event),
    reset() {
      standing?.now();
      table?.reload();
      page?.reload();
    },
    refused: () => void get("/whoami").catch(() => {}), // a 401 brings the sign-in form
  });
  stops.push(live.stop);
}

function stopAll() {
  for (const stop of stops) stop();
  page?.stop();
  stops = [];
  table = page = user = oldest = standing = null;
  aged();
  banner();
}

function signedOut(why) {
  stopAll();
  state("out");
  byId("who").hidden = byId("sign-out").hidden = byId("operations").hidden = true;
  byId("tutor").replaceChildren(); // nothing of the last user stays behind
  byId("tutors").replaceChildren();
  document.title = "Sign in – Tutor performance";
  signInForm(byId("sign-in"), why, () => void enter());
  show("sign-in");
  byId("sign-in").querySelector("input").focus();
}

async function enter() {
  const poll = keepAsking({
    ask: (signal) => get("/whoami", {}, signal),
    show(answer) {
      poll.stop();
      banner();
      if (lastUser !== null && lastUser !== answer.user_id) location.reload(); // another one's figures go
      byId("sign-in").hidden = true;
      user = answer;
      lastUser = answer.user_id;
      setText(byId("who"), answer.full_name ?? (answer.is_staff ? "Staff" : answer.tutor_id ?? ""));
      byId("who").hidden = byId("sign-out").hidden = false;
      byId("operations").hidden = !user.is_staff;
      route();
      startLive();
    },
    fail(refused) {
      show("waiting");
      byId("waiting").replaceChildren(refusal(refused, () => poll.now()));
    },
  });
  stops.push(poll.stop);
}

document.addEventListener("signed-out", () => {
  if (!byId("sign-in").hidden) return; // several requests may find out at once
  signedOut(user ? "Your session has ended. Sign in again." : "");
});
byId("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
    location.replace(`${location.pathname}#/`);
    location.reload(); // nothing of this user stays in the page
  } catch (refused) {
    banner(refusal(refused));
  }
});
byId("theme").addEventListener("click", () => window.toggleTheme());
const themed = () => byId("theme").setAttribute("aria-pressed", String(document.documentElement.dataset.theme === "dark"));
document.addEventListener("theme", themed);
themed();
addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || !user?.is_staff || byId("tutor").hidden) return;
  if (event.target.closest?.("select, input")) return; // it closes a list of choices
  location.hash = "#/";
});
setInterval(aged, 1000);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the page's address
  byId("main").focus();
});

const refused = await tokenFromAddress();
if (refused) signedOut(refused);
else await enter();
