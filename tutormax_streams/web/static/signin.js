// Signing in: a token from the link's fragment, or pasted. The token is kept nowhere; the server sets a cookie.
import { signIn } from "./api.js";
import { make, setText } from "./dom.js";

const spoken = (refused) => (refused.status === 401 ? `This token is not accepted: ${refused.message || "it may have expired"}.` : `${refused.title}. ${refused.message}`.trim());

/** Trades `#token=...` for a session and takes it out of the address. Returns why not, or null. */
export async function tokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return null;
  history.replaceState(null, "", `${location.pathname}#/`);
  try {
    await signIn(token);
    return null;
  } catch (refused) {
    return spoken(refused);
  }
}

// A link pasted into an open tab changes the fragment alone: loaded anew, the page takes the token out of it.
addEventListener("hashchange", (event) => {
  if (!location.hash.startsWith("#token=")) return;
  event.stopImmediatePropagation(); // to whoever else listens it is no place to go
  location.reload();
});

/** Fills `box` with the form. `why` is said above it; `done` is called once the session stands. */
export function signInForm(box, why, done) {
  const error = make("p", { id: "sign-in-error", class: "form-error", role: "alert" }, why);
  const field = make("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "sign-in-help sign-in-error" });
  const button = make("button", { type: "submit", class: "primary" }, "Sign in");
  const form = make(
    "form",
    { method: "post" },
    make("label", { for: "token" }, "Access token"),
    make("p", { id: "sign-in-help", class: "hint" }, "Paste the token of your TutorMax account. It is not stored by this page."),
    field,
    error,
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    setText(error, "");
    field.removeAttribute("aria-invalid");
    try {
      await signIn(field.value.trim().replace(/^Bearer\s+/i, ""));
      field.value = "";
      done();
    } catch (refused) {
      setText(error, spoken(refused));
      field.setAttribute("aria-invalid", "true");
      field.focus();
    } finally {
      button.disabled = false;
    }
  });
  box.replaceChildren(make("h2", { id: "sign-in-title" }, "Sign in"), form);
}
