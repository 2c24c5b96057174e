// Sends the form, and shows what became of it beside the fields.
"use strict";

const TIMEOUT_MS = 30_000;
const place = (id) => document.getElementById(id);
const form = place("form");
const fields = { email: place("email"), name: place("name") };

// The same form sent again, as after a lost answer, bears the same key: it signs nobody up twice.
let sent = { body: null, key: null };

function keyFor(body) {
  if (sent.body !== body) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    sent = { body, key: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") };
  }
  return sent.key;
}

function showFault(name, text) {
  fields[name].setAttribute("aria-invalid", text ? "true" : "false");
  place(`${name}-error`).textContent = text;
}

function showProblem(text) {
  place("problem").textContent = text;
  place("problem").hidden = text === "";
}

function clearFaults() {
  for (const name of Object.keys(fields)) {
    showFault(name, "");
  }
  showProblem("");
}

function focusFirstFault() {
  const wrong = Object.values(fields).find((field) => field.getAttribute("aria-invalid") === "true");
  wrong?.focus();
}

// Faults come as [{ message, path }]; one that concerns no field is told below the form.
function showFaults(problem) {
  const rest = [];
  for (const { message, path } of Array.isArray(problem.errors) ? problem.errors : []) {
    const name = path?.[0];
    if (Object.hasOwn(fields, name)) {
      showFault(name, fields[name].value.trim() === "" ? "Please fill this in." : sentence(message));
    } else {
      rest.push(message);
    }
  }
  showProblem(rest.join(" "));
  focusFirstFault();
}

function showRefusal(status, problem, traceId) {
  if (status === 409) {
    showFault("email", sentence(problem.detail ?? "this e-mail address is taken"));
    focusFirstFault();
  } else if (status === 400 && Array.isArray(problem.errors) && problem.errors.length > 0) {
    showFaults(problem);
  } else {
    const trace = traceId ? ` If you report it, give this number: ${traceId}` : "";
    showProblem(`Something went wrong on our side. Please try again.${trace}`);
  }
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
}

function showDone(user) {
  place("done-name").textContent = user.name;
  place("done-email").textContent = user.email;
  place("user-id").textContent = user.userId;
  form.hidden = true;
  place("done").hidden = false;
  place("done").focus();
}

async function signUp() {
  const body = JSON.stringify({ email: fields.email.value.trim(), name: fields.name.value.trim() });
  const response = await fetch("/api/v1/sign-up", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": keyFor(body) },
    body,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const answer = await response.json();
  if (response.ok) {
    showDone(answer);
  } else {
    showRefusal(response.status, answer, response.headers.get("x-trace-id"));
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = place("submit");
  if (button.disabled) {
    return;
  }
  clearFaults();
  button.disabled = true;
  button.textContent = "Signing up …";
  try {
    await signUp();
  } catch {
    showProblem("The server did not answer. Check your connection and try again; you will not be signed up twice.");
  } finally {
    button.disabled = false;
    button.textContent = "Sign up";
  }
});

place("again").addEventListener("click", () => {
  form.reset();
  clearFaults();
  sent = { body: null, key: null };
  place("done").hidden = true;
  form.hidden = false;
  fields.email.focus();
});
