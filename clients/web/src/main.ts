// Puts the page together: logging in, and what follows from it.
import { ConnectError } from "@connectrpc/connect";
import { AlertView } from "./alerts.js";
import { FleetView } from "./fleet.js";
import { VehicleMap } from "./map.js";
import { loadNetwork, stopNames } from "./network.js";
import { Session } from "./session.js";
import { find } from "./text.js";
import { TripView } from "./trip.js";
import "./style.css";

const TENANT_KEPT = "wayfare-tenant";

class Page {
  private readonly map: VehicleMap;
  private session: Session | undefined;
  private fleet: FleetView | undefined;
  private everything = new AbortController();
  private oneTrip = new AbortController();
  private trip: TripView | undefined;

  constructor(
    network: Awaited<ReturnType<typeof loadNetwork>>,
    private readonly names = stopNames(network),
  ) {
    this.map = new VehicleMap(find("#map"), network, (vehicleId) => {
      const tripId = this.fleet?.tripOf(vehicleId) ?? "";
      if (tripId !== "") this.follow(tripId);
    });
  }

  begin(): void {
    const logIn = find<HTMLFormElement>("#log-in");
    const fields = new URLSearchParams(location.search);
    // A link may name the operator and the trip; who asks is said by logging in.
    field(logIn, "tenant").value = fields.get("tenant") ?? localStorage.getItem(TENANT_KEPT) ?? "";
    field(logIn, "tenant").closest("label")!.hidden = fields.has("tenant");
    logIn.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.logIn(logIn);
    });
    const follow = find<HTMLFormElement>("#follow");
    follow.addEventListener("submit", (event) => {
      event.preventDefault();
      this.follow(field(follow, "trip").value.trim().toLowerCase());
    });
    find("#trip .close").addEventListener("click", () => this.unfollow());
    find("#log-out").addEventListener("click", () => void this.logOut());
    const resumed = Session.resumed();
    if (resumed !== undefined) this.enter(resumed);
  }

  private async logIn(form: HTMLFormElement): Promise<void> {
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
      this.enter(session);
    } catch (error) {
      refusal.textContent = ConnectError.from(error).rawMessage;
      refusal.hidden = false;
    } finally {
      button.disabled = false;
    }
  }

  private enter(session: Session): void {
    this.session = session;
    this.everything = new AbortController();
    find<HTMLElement>("#log-in").hidden = true;
    find<HTMLElement>("#log-out").hidden = false;
    find<HTMLElement>("#follow").hidden = false;
    const { signal } = this.everything;
    const choose = (tripId: string) => this.follow(tripId);
    if (session.seesFleet) {
      this.fleet = new FleetView(this.map, choose, (state) => showState(state));
      void this.fleet.run(session, signal);
    }
    if (session.seesAlerts) void new AlertView(choose).run(session, signal);
    const trip = new URLSearchParams(location.search).get("trip");
    if (trip !== null) this.follow(trip.toLowerCase());
  }

  private follow(tripId: string): void {
    if (this.session === undefined) return;
    this.oneTrip.abort();
    this.oneTrip = new AbortController();
    this.trip = new TripView(
      this.map,
      this.names,
      (vehicleId) => this.fleet?.mark(vehicleId),
      (state) => showState(state),
    );
    const signal = AbortSignal.any([this.oneTrip.signal, this.everything.signal]);
    void this.trip.run(this.session, tripId, signal);
  }

  private unfollow(): void {
    this.oneTrip.abort();
    this.trip?.hide();
    this.map.unfollow();
    this.fleet?.mark("");
    if (this.fleet === undefined) this.map.clear();
  }

  private async logOut(): Promise<void> {
    this.everything.abort();
    await this.session?.logOut();
    location.reload();
  }
}

function field(form: HTMLFormElement, name: string): HTMLInputElement {
  return find<HTMLInputElement>(`[name=${name}]`, form);
}

function showState(state: "connecting" | "live" | "lost"): void {
  const words = { connecting: "connecting…", live: "live", lost: "connection lost, trying again" };
  const shown = find<HTMLElement>("#connection");
  // A status that is announced again with every position would never stop talking.
  if (shown.dataset["state"] === state) return;
  shown.dataset["state"] = state;
  shown.textContent = words[state];
}

new Page(await loadNetwork()).begin();
