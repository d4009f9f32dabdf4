// Puts the page together: logging in, and what follows from it.
import { AlertView } from "./alerts.js";
import { FleetView } from "./fleet.js";
import { askForSession, field, showConnection } from "./login.js";
import { VehicleMap } from "./map.js";
import { loadNetwork, stopNames } from "./network.js";
import type { Session } from "./session.js";
import { find } from "./text.js";
import { TripView } from "./trip.js";
import "./style.css";

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
    const follow = find<HTMLFormElement>("#follow");
    follow.addEventListener("submit", (event) => {
      event.preventDefault();
      this.follow(field(follow, "trip").value.trim().toLowerCase());
    });
    find("#trip .close").addEventListener("click", () => this.unfollow());
    find("#log-out").addEventListener("click", () => void this.logOut());
    askForSession((session) => this.enter(session));
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
      this.fleet = new FleetView(this.map, choose, (state) => showConnection(state));
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
      (state) => showConnection(state),
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

new Page(await loadNetwork()).begin();
