// What the wall shows of one answer of /operations/state. It never asks, and keeps nothing but the owners' letters.
import { byId, make, setText } from "./dom.js";
import { keyed } from "./keyed.js";
import { duration, number } from "./words.js";

const COLOURS = 8;
const letters = new Map(); // by URL, for as long as the page is open: a worker keeps its colour

/** 0 is A, 26 is AA. */
function letterOf(url) {
  if (url === null) return "–";
  if (!letters.has(url)) letters.set(url, letters.size);
  let at = letters.get(url) + 1;
  let text = "";
  for (; at > 0; at = Math.floor((at - 1) / 26)) text = String.fromCharCode(65 + ((at - 1) % 26)) + text;
  return text;
}

const colourOf = (url) => (url === null ? "owner-none" : (letterOf(url), `owner-${letters.get(url) % COLOURS}`));

/** "0.4", "75": seconds for a column. */
const seconds = (value) => (value === null ? "–" : number(value, value < 10 ? 1 : 0));
const lasting = (value) => (value < 10 ? `${number(value, 1)} s` : duration(value));
const many = (count, one, more) => `${number(count)} ${count === 1 ? one : more}`;
const hostOf = (url) => url.replace(/^https?:\/\//, "");

function classes(element, text) {
  if (element.className !== text) element.className = text;
}

// --- the line ----------------------------------------------------------------------------------------------------

const MARKS = { well: "✓", odd: "!", bad: "✕" };

/** `level`: well, odd, bad. */
export function verdict(level, title, problems = []) {
  byId("verdict").dataset.level = level;
  setText(byId("verdict").querySelector(".mark"), MARKS[level]);
  setText(byId("verdict-title"), title);
  keyed(
    byId("problems"),
    problems,
    (_, at) => at,
    () => make("li", {}, make("span", { class: "level" }), make("span", { class: "text" })),
    (line, { level, text }) => {
      setText(line.children[0], level === "bad" ? "Wrong" : "Odd");
      classes(line.children[0], `level ${level}`);
      setText(line.children[1], text);
    },
  );
}

function judged(answer) {
  const bad = answer.problems.filter(({ level }) => level === "bad").length;
  if (!answer.problems.length) return verdict("well", "All well");
  const odd = answer.problems.length - bad;
  if (!bad) return verdict("odd", many(odd, "thing to look at", "things to look at"), answer.problems);
  return verdict("bad", bad === 1 ? "Something is wrong" : `${number(bad)} things are wrong`, answer.problems);
}

// --- figures -----------------------------------------------------------------------------------------------------

function totals(answer) {
  const answering = answer.workers.filter((worker) => worker.answers).length;
  const serving = answer.partitions.filter(({ state }) => state === "serving").length;
  const lags = Object.entries(answer.topics).sort(([, a], [, b]) => b.lag_seconds - a.lag_seconds);
  const records = lags.reduce((sum, [, lag]) => sum + lag.lag_records, 0);
  const { p50_seconds: p50, p99_seconds: p99, events, period_seconds: period } = answer.freshness;
  const recent = answer.dead_letters.reduce((sum, found) => sum + found.recent, 0);
  const ever = answer.dead_letters.reduce((sum, found) => sum + found.count, 0);
  const behind = lags.length ? lags[0][1].lag_seconds : 0;
  const shown = [
    ["Workers that answer", `${answering} of ${answer.workers.length}`, answering < answer.workers.length && "bad", ""],
    ["Partitions that serve", `${serving} of ${answer.partitions.length}`, serving < answer.partitions.length && "bad", ""],
    ["Largest lag", `${seconds(behind)} s`, behind >= 60 && "odd", behind ? `${lags[0][0]}; ${many(records, "record waits", "records wait")}` : many(records, "record waits", "records wait")],
    ["Freshness, half within", p50 === null ? "–" : lasting(p50), null, p50 === null && !events ? `no events in ${duration(period)}` : `event to row; ${many(events, "event", "events")} in ${duration(period)}`],
    ["Freshness, 99 % within", p99 === null ? "–" : lasting(p99), null, p99 === null ? "" : "event to committed row"],
    ["Dead letters", number(recent), recent > 0 && "odd", `in the last minutes; ${number(ever)} since start`],
  ];
  keyed(
    byId("totals"),
    shown,
    ([label]) => label,
    ([label]) => make("div", {}, make("dt", {}, label), make("dd", { class: "value" }), make("dd", { class: "more" })),
    (box, [, value, level, more]) => {
      setText(box.children[1], value);
      classes(box.children[1], level ? `value ${level}` : "value");
      setText(box.children[2], more);
    },
  );
}

// --- partitions --------------------------------------------------------------------------------------------------

function partitions(answer) {
  const owned = new Map();
  for (const { url } of answer.partitions) owned.set(url, (owned.get(url) ?? 0) + 1);
  const owners = [...answer.workers.map(({ url, name }) => ({ url, name })), ...(owned.has(null) ? [{ url: null, name: "no owner" }] : [])];
  keyed(
    byId("owners"),
    owners.filter(({ url }) => owned.has(url)),
    ({ url }) => url ?? "",
    ({ url }) => make("li", {}, make("span", { class: `letter ${colourOf(url)}` }, letterOf(url)), make("span")),
    (line, { url, name }) => setText(line.children[1], `${name ?? hostOf(url)}: ${owned.get(url)}`),
  );
  keyed(
    byId("partitions"),
    answer.partitions,
    ({ partition }) => partition,
    ({ partition }) =>
      make(
        "li",
        {},
        make("span", { class: "what" }, make("span", { class: "unseen" }, "Partition "), String(partition)),
        make("span", { class: "who-owns" }),
        make("span", { class: "what" }),
        make("span", { class: "unseen" }),
      ),
    (cell, { url, owner, state }) => {
      cell.dataset.state = state;
      classes(cell, colourOf(url));
      setText(cell.children[1], letterOf(url));
      setText(cell.children[2], state === "serving" ? "" : state);
      setText(cell.children[3], `, ${owner === null ? "" : `owner ${owner}, `}${state}`);
    },
  );
}

// --- workers -----------------------------------------------------------------------------------------------------

const CELLS = ["Roles", "State", "Up for", "Partitions", "Lag, records", "Oldest undone, seconds", "Clock off by, seconds", "Version"];
const NUMBERS = new Set([2, 3, 4, 5, 6]);

function standing(worker) {
  if (!worker.answers) {
    const since = worker.silent_seconds;
    return ["bad", since === null ? "no answer" : `no answer for ${duration(since)}`];
  }
  const reasons = Object.entries(worker.readiness).flatMap(([role, found]) => found.reasons.map((reason) => `${role}: ${reason}`));
  if (reasons.length) return ["bad", reasons.join("; ")];
  return worker.started ? ["well", "ready"] : ["odd", "starting"];
}

function cellsOf(worker) {
  const [, words] = standing(worker);
  if (!worker.answers) return ["–", words, "–", "–", "–", "–", "–", "–"];
  const lag = Object.values(worker.topics).reduce((sum, topic) => sum + topic.lag_records, 0);
  const held = worker.tables ? number(worker.tables.partitions.length) : "–";
  return [
    worker.roles.join(", "), words, duration(worker.uptime_seconds), held, number(lag),
    seconds(worker.oldest_uncommitted_seconds), number(worker.clock_skew_seconds, 1), worker.versions["tutormax-streams"],
  ];
}

function workers(answer) {
  keyed(
    byId("workers"),
    answer.workers,
    ({ url }) => url,
    ({ url }) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", class: "name" }, make("span", { class: `letter ${colourOf(url)}` }, letterOf(url)), " ", make("span")),
        CELLS.map((label, at) => make("td", { "data-label": label, class: NUMBERS.has(at) ? "number" : at === 1 ? "reasons" : null }, make("span"))),
      ),
    (row, worker) => {
      setText(row.children[0].lastElementChild, worker.name ?? hostOf(worker.url));
      cellsOf(worker).forEach((text, at) => setText(row.children[at + 1].firstElementChild, text));
      classes(row.children[2].firstElementChild, standing(worker)[0]);
    },
  );
}

// --- the rest ----------------------------------------------------------------------------------------------------

function topics(answer) {
  keyed(
    byId("topics"),
    Object.entries(answer.topics),
    ([topic]) => topic,
    ([topic]) => make("tr", {}, make("th", { scope: "row" }, topic), make("td", { class: "number" }), make("td", { class: "number" }), make("td", { class: "number" }), make("td")),
    (row, [, lag]) => {
      setText(row.children[1], seconds(lag.lag_seconds));
      classes(row.children[1], lag.lag_seconds >= 60 ? "number odd" : "number");
      setText(row.children[2], number(lag.lag_records));
      setText(row.children[3], number(lag.partitions));
      setText(row.children[4], lag.breaker ?? "–");
      classes(row.children[4], lag.breaker && lag.breaker !== "closed" ? "bad" : "");
    },
  );
}

/** A bar and how long it will take; a sentence where nothing is to be done. */
function progress(box, label, found, nothing) {
  if (!box.children.length) {
    box.append(
      make("p", { class: "hint" }),
      make("div", { class: "progress", hidden: true }, make("p", { class: "left" }), make("progress", { class: "meter", "aria-label": label }), make("p", { class: "hint" })),
    );
  }
  const [sentence, bar] = box.children;
  sentence.hidden = found !== null;
  bar.hidden = found === null;
  setText(sentence, nothing);
  if (found === null) return;
  const { remaining_records: left, most_records: most, records_per_second: rate, seconds_left: eta } = found;
  const share = most ? (most - left) / most : 0;
  setText(bar.children[0], `${label}: ${number(share * 100)} % done, ${eta === null ? "time left not known yet" : `about ${duration(eta)} left`}`);
  bar.children[1].max = most;
  bar.children[1].value = most - left;
  setText(bar.children[2], `${many(left, "record", "records")} to go${rate > 0 ? `, ${number(rate)} fewer every second` : ""}`);
}

function sink(answer) {
  const { sink: found } = answer;
  const state = byId("sink-state");
  if (found === null) {
    setText(state, "No worker with the role sink answers.");
    classes(state, "sink-state bad");
    byId("sink").replaceChildren();
    return;
  }
  const waits = found.waiting.map(({ worker, sink, reason, seconds: since }) => `${sink} of ${worker} waits for PostgreSQL for ${duration(since)}: ${reason}`);
  setText(state, waits.length ? waits.join(" ") : `Writes to PostgreSQL from ${many(found.workers, "worker", "workers")}.`);
  classes(state, waits.length ? "sink-state bad" : "sink-state");
  keyed(
    byId("sink"),
    [
      ["Tutors written", found.flushed_tutors],
      ["Writes tried again", found.retries],
      ["Rows parked", found.parked],
      ["Of these written", found.unparked],
      ["Refused as older", found.fenced],
    ],
    ([label]) => label,
    ([label]) => make("div", {}, make("dt", {}, label), make("dd")),
    (box, [, value]) => setText(box.children[1], number(value)),
  );
}

function deadLetters(answer) {
  byId("letters-table").hidden = !answer.dead_letters.length;
  setText(byId("letters-hint"), answer.dead_letters.length ? "Counted by each worker since it started." : "None since the workers started.");
  keyed(
    byId("letters"),
    answer.dead_letters,
    ({ topic, reason }) => `${topic} ${reason}`,
    ({ topic, reason }) => make("tr", {}, make("th", { scope: "row" }, topic), make("td", {}, reason), make("td", { class: "number" }), make("td", { class: "number" })),
    (row, { count, recent }) => {
      setText(row.children[2], number(recent));
      classes(row.children[2], recent ? "number odd" : "number");
      setText(row.children[3], number(count));
    },
  );
}

export function show(answer) {
  for (const { url } of answer.workers) letterOf(url);
  judged(answer);
  totals(answer);
  partitions(answer);
  workers(answer);
  topics(answer);
  progress(byId("recovery"), "Recovery", answer.recovery, "No tables are being recovered.");
  progress(byId("backlog"), "Backlog", answer.backlog, "No backlog: records are worked off as they come.");
  sink(answer);
  deadLetters(answer);
}
