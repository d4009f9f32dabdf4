// Puts the page of seats together: the address says what is shown, so that every view has a link.
import { askForSession, showConnection, tenantKept } from "../login.js";
import { loadNetwork, type Network } from "../network.js";
import type { Session } from "../session.js";
import { find } from "../text.js";
import { BookingView } from "./booking.js";
import { JourneyView } from "./journey.js";
import { type Chosen, SearchView } from "./search.js";
import "../style.css";
import "./seats.css";

class Page {
  private view = new AbortController();
  private search: SearchView | undefined;

  constructor(private readonly network: Network) {}

  begin(): void {
    askForSession((session) => this.enter(session));
  }

  private enter(session: Session): void {
    find<HTMLElement>("#log-in").hidden = true;
    const logOut = find<HTMLElement>("#log-out");
    logOut.hidden = false;
    logOut.addEventListener("click", async () => {
      this.view.abort();
      await session.logOut();
      location.href = `?${new URLSearchParams({ tenant: tenantKept() })}`;
    });
    this.search = new SearchView(
      session,
      this.network,
      (chosen) => this.go(session, { trip: chosen.tripId, from: chosen.fromStopId, to: chosen.toStopId }),
      (bookingId) => this.go(session, { booking: bookingId }),
    );
    for (const back of document.querySelectorAll<HTMLElement>(".back")) {
      back.addEventListener("click", () => this.go(session, {}));
    }
    window.addEventListener("popstate", () => this.show(session));
    this.show(session);
  }

  /** Show another view, and give it an address to come back to. */
  private go(session: Session, place: Record<string, string>): void {
    history.pushState(null, "", `?${new URLSearchParams({ tenant: tenantKept(), ...place })}`);
    this.show(session);
    window.scrollTo(0, 0);
  }

  private show(session: Session): void {
    this.view.abort();
    this.view = new AbortController();
    const { signal } = this.view;
    const place = new URLSearchParams(location.search);
    const bookingId = place.get("booking");
    const tripId = place.get("trip");
    showConnection("idle");
    find<HTMLElement>("#connection").hidden = tripId === null || bookingId !== null;
    for (const id of ["search", "journey", "booking"]) find<HTMLElement>(`#${id}`).hidden = true;
    if (bookingId !== null) {
      void new BookingView(session, bookingId, signal).run();
    } else if (tripId !== null) {
      const chosen: Chosen = { tripId, fromStopId: place.get("from") ?? "", toStopId: place.get("to") ?? "" };
      const open = (booked: string) => this.go(session, { booking: booked });
      void new JourneyView(session, chosen, open, signal).run();
    } else {
      find<HTMLElement>("#search").hidden = false;
      void this.search?.showBookings();
    }
  }
}

new Page(await loadNetwork()).begin();
