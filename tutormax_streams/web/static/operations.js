// The composition of the page for the wall: who is signed in, when to ask, and what to say when nobody answers.
import { Refused, get, keepAsking, signOut } from "./api.js";
import { byId, setText } from "./dom.js";
import { refusal } from "./notice.js";
import { signInForm, tokenFromAddress } from "./signin.js";
import { show as showState, verdict } from "./wall.js";
import { clock, duration } from "./words.js";

const EVERY_SECONDS = 2;
const PARTS = ["waiting", "sign-in", "wall"];
const STATES = { live: "Refreshed every 2 s", waiting: "Connecting", offline: "No answer", out: "Signed out" };

let poll = null;
let answered = null; // when the last answer came
let lost = null; // the refusal since then

function part(name) {
  for (const id of PARTS) byId(id).hidden = id !== name;
}

function state(name) {
  byId("connection").dataset.state = name;
  setText(byId("connection").querySelector(".text"), STATES[name]);
}

function stale() {
  byId("wall").classList.toggle("stale", lost !== null);
  if (lost === null || answered === null) return;
  const since = duration((Date.now() - answered.getTime()) / 1000);
  const words = lost.message && lost.status !== 0 ? ` The server says: ${lost.message}` : "";
  verdict("bad", `${lost.title} since ${clock(answered)}`, [
    { level: "bad", text: `What is shown below is ${since} old.${words}` },
  ]);
}

function watch() {
  part("waiting");
  poll = keepAsking({
    ask: (signal) => get("/operations/state", {}, signal),
    everySeconds: EVERY_SECONDS,
    show(answer) {
      answered = new Date();
      lost = null;
      state("live");
      part("wall");
      stale();
      setText(byId("age"), `As ${answer.asked} told at ${clock(answered)}`);
      showState(answer);
    },
    fail(refused) {
      state("offline");
      lost = refused;
      if (answered !== null && refused.retrySeconds !== null) return stale();
      part("waiting");
      byId("waiting").replaceChildren(refusal(refused, () => poll.now()));
    },
  });
}

function signedOut(why) {
  poll?.stop();
  poll = answered = lost = null;
  state("out");
  setText(byId("age"), "");
  byId("who").hidden = byId("sign-out").hidden = true;
  signInForm(byId("sign-in"), why, () => enter());
  part("sign-in");
  byId("sign-in").querySelector("input").focus();
}

function enter() {
  const asking = (poll = keepAsking({
    ask: (signal) => get("/whoami", {}, signal),
    show(user) {
      asking.stop();
      setText(byId("who"), user.full_name ?? "");
      byId("who").hidden = byId("sign-out").hidden = false;
      if (user.is_staff) return watch();
      part("waiting");
      byId("waiting").replaceChildren(refusal(new Refused(403, "this page is for staff", null)));
    },
    fail(refused) {
      state("offline");
      part("waiting");
      byId("waiting").replaceChildren(refusal(refused, () => asking.now()));
    },
  }));
}

document.addEventListener("signed-out", () => {
  if (!byId("sign-in").hidden) return; // several requests may find out at once
  signedOut(answered ? "Your session has ended. Sign in again." : "");
});
byId("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
    location.reload(); // nothing of this user stays in the page
  } catch (refused) {
    lost = refused;
    stale();
  }
});
byId("theme").addEventListener("click", () => window.toggleTheme());
const themed = () => byId("theme").setAttribute("aria-pressed", String(document.documentElement.dataset.theme === "dark"));
document.addEventListener("theme", themed);
themed();
setInterval(stale, 1000);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});

const refused = await tokenFromAddress();
if (refused) signedOut(refused);
else enter();
