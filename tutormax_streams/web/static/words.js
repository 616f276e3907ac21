// The names, units and spellings of what is shown: tiers, figures, times.

export const TIERS = ["Exemplary", "Strong", "Developing", "Needs Attention", "At Risk"];
/** What a tier is called in class names and colour variables. */
export const tierKey = (tier) => (TIERS.includes(tier) ? tier.toLowerCase().replace(" ", "-") : "none");
export const TIER_SIGNS = { "Exemplary": "★", "Strong": "▲", "Developing": "●", "Needs Attention": "▼", "At Risk": "!" };
export const TIER_RULES = {
  "Exemplary": "at least 5 green and no red",
  "Strong": "3 or 4 green and no red",
  "Developing": "fewer than 3 green and no red",
  "Needs Attention": "1 or 2 red",
  "At Risk": "3 or more red",
};

export const WINDOWS = { "7day": "7 days", "30day": "30 days", "90day": "90 days" };

/** In the order of the table. `unit` stands in a column's head, `after` behind a number. */
export const FIGURES = {
  sessions_completed: { label: "Sessions", long: "Sessions completed", unit: "count", after: [" session", " sessions"], digits: 0 },
  avg_rating: { label: "Rating", long: "Average rating", unit: "stars, 1–5", after: [" star", " stars"], digits: 2 },
  first_session_success_rate: { label: "First sessions", long: "First sessions rated 4 or 5", unit: "%", after: [" %"], digits: 1 },
  reschedule_rate: { label: "Reschedules", long: "Rescheduled by the tutor", unit: "%", after: [" %"], digits: 1 },
  no_show_count: { label: "No-shows", long: "No-shows", unit: "count", after: [" no-show", " no-shows"], digits: 0 },
  engagement_score: { label: "Engagement", long: "Engagement", unit: "%", after: [" %"], digits: 1 },
  learning_objectives_met_pct: { label: "Objectives", long: "Learning objectives met", unit: "%", after: [" %"], digits: 1 },
  response_time_avg_minutes: { label: "Response", long: "Average response time", unit: "minutes", after: [" min"], digits: 1 },
};

const formats = new Map();

/** "1,234.5"; "–" for null: a figure that has nothing to stand on. */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  const isZero = Math.abs(value) < 0.5 * 10 ** -digits; // of a small negative one the format would leave "-0.0"
  return formats.get(digits).format(isZero ? 0 : value);
}

export const bare = (figure, value) => number(value, FIGURES[figure].digits);

/** A figure with its unit: "4.52 stars". `trim` leaves out needless zeros: "4.5 stars". */
export function withUnit(figure, value, trim = false) {
  if (value === null || value === undefined) return "no data";
  const { after, digits } = FIGURES[figure];
  const text = trim ? String(Math.round(value * 100) / 100) : number(value, digits);
  return text + (value === 1 || after.length === 1 ? after[0] : after[1]);
}

/** Servers write UTC, with `Z` or naive. */
export const instant = (text) => new Date(/[zZ]|[+-]\d\d:\d\d$/.test(text) ? text : `${text}Z`);

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
export const clock = (date) => clockFormat.format(date);
export const day = (date) => dayFormat.format(date);

/** "4 s", "12 min", "3 h", "2 days". */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

/** The server's clock minus ours, in milliseconds, by the newest answer: ages must not depend on this computer's clock. */
let skew = 0;
export const learnClock = (timestamp) => {
  if (timestamp) skew = instant(timestamp).getTime() - Date.now();
};
export const ageSeconds = (text) => Math.max(0, (Date.now() + skew - instant(text).getTime()) / 1000);
