// The log-in form, which both pages have.
import { ConnectError } from "@connectrpc/connect";
import { Session } from "./session.js";
import { find } from "./text.js";

const TENANT_KEPT = "wayfare-tenant";

/** Return the operator that the link names, or the one of the last log-in; empty when there is none. */
export function tenantKept(): string {
  return new URLSearchParams(location.search).get("tenant") ?? localStorage.getItem(TENANT_KEPT) ?? "";
}

/** Go on with the session of this tab or wait for a log-in, and hand it on. */
export function askForSession(enter: (session: Session) => void): void {
  const form = find<HTMLFormElement>("#log-in");
  // A link may name the operator; who asks is said by logging in.
  field(form, "tenant").value = tenantKept();
  field(form, "tenant").closest("label")!.hidden = new URLSearchParams(location.search).has("tenant");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void logIn(form, enter);
  });
  const resumed = Session.resumed();
  if (resumed !== undefined) enter(resumed);
}

async function logIn(form: HTMLFormElement, enter: (session: Session) => void): Promise<void> {
  const refusal = find<HTMLElement>(".refusal", form);
  const button = find<HTMLButtonElement>("button", form);
  refusal.hidden = true;
  button.disabled = true;
  try {
    const tenant = field(form, "tenant").value.trim();
    const phone = field(form, "phone").value.replace(/[\s()-]/g, "");
    const session = await Session.logIn(tenant, phone, field(form, "password").value);
    localStorage.setItem(TENANT_KEPT, tenant);
    field(form, "password").value = "";
    enter(session);
  } catch (error) {
    refusal.textContent = ConnectError.from(error).rawMessage;
    refusal.hidden = false;
  } finally {
    button.disabled = false;
  }
}

export function field(form: HTMLFormElement, name: string): HTMLInputElement {
  return find<HTMLInputElement>(`[name=${name}]`, form);
}

/** Say how the connection is, in the bar. */
export function showConnection(state: "connecting" | "live" | "lost" | "idle"): void {
  const words = {
    connecting: "connecting…",
    live: "live",
    lost: "connection lost, trying again",
    idle: "not connected",
  };
  const shown = find<HTMLElement>("#connection");
  // A status that is announced again with every message would never stop talking.
  if (shown.dataset["state"] === state) return;
  shown.dataset["state"] = state;
  shown.textContent = words[state];
}
