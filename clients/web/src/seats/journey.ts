// One journey: its seats live, the person's choice, the hold with its countdown, then the checkout.
import type { Booking } from "../../gen/wayfare/booking/v1/booking_pb.js";
import type { Hold } from "../../gen/wayfare/booking/v1/hold_pb.js";
import { HoldState } from "../../gen/wayfare/booking/v1/hold_pb.js";
import type { SeatUpdate } from "../../gen/wayfare/booking/v1/seat_map_pb.js";
import type { Trip, TripStop } from "../../gen/wayfare/booking/v1/trip_pb.js";
import { showConnection } from "../login.js";
import type { Session } from "../session.js";
import { follow } from "../stream.js";
import { element, find } from "../text.js";
import { SeatBoard } from "./board.js";
import { bookings, persist } from "./calls.js";
import { CheckoutView } from "./checkout.js";
import { ChoicePanel } from "./choice.js";
import { arrivalOf, departureOf, sayMoment, sayTime } from "./moments.js";
import { SeatMapView } from "./seat_map.js";
import type { Chosen } from "./search.js";
import { refusalOf, type Refusal } from "./words.js";

// A heartbeat comes every 15 seconds.
const SILENCE_NOTICED_MS = 20_000;

/** Shows one journey until its signal is aborted. */
export class JourneyView {
  private readonly section = find<HTMLElement>("#journey");
  private readonly note = find<HTMLElement>("#seat-note");
  private readonly board = new SeatBoard();
  private readonly map: SeatMapView;
  private readonly panel: ChoicePanel;
  private checkout: CheckoutView | undefined;
  private trip: Trip | undefined;
  private heard = 0;
  private connection = "connecting";
  private ended = "";

  constructor(
    private readonly session: Session,
    private readonly journey: Chosen,
    private readonly openBooking: (bookingId: string) => void,
    private readonly signal: AbortSignal,
  ) {
    this.panel = new ChoicePanel(session, journey, this.board, {
      changed: () => this.draw(),
      held: (hold) => this.showHold(hold),
      paying: (bookingId) => this.openBooking(bookingId),
      announce: (sentence) => this.announce(sentence),
    });
    this.map = new SeatMapView(find("#seats"), this.board, (seatNumber, mark) => this.panel.press(seatNumber, mark));
  }

  async run(): Promise<void> {
    this.section.hidden = false;
    this.section.dataset["trip"] = this.journey.tripId;
    find("#seats").replaceChildren();
    find("#journey h2").textContent = "Looking for the trip…";
    try {
      this.trip = await persist(() => bookings(this.session).getTrip({ tripId: this.journey.tripId }));
    } catch (error) {
      find("#journey h2").textContent = refusalOf(error).text;
      return;
    }
    if (this.signal.aborted) return;
    // A link may name the trip alone: then it is the whole way.
    this.journey.fromStopId ||= this.trip.stops[0]?.stopId ?? "";
    this.journey.toStopId ||= this.trip.stops.at(-1)?.stopId ?? "";
    this.headline(this.trip);
    this.checkout = new CheckoutView(
      this.session,
      this.trip,
      (booking) => this.booked(booking),
      (refusal) => void this.refused(refusal),
    );
    this.checkout.hide();
    this.panel.begin();
    void this.resumeHold();
    // A phone that slept has lost count.
    const awake = () => document.visibilityState === "visible" && void this.resumeHold();
    document.addEventListener("visibilitychange", awake);
    const clock = window.setInterval(() => this.say(), 1_000);
    try {
      await this.watch();
    } finally {
      window.clearInterval(clock);
      document.removeEventListener("visibilitychange", awake);
      this.panel.stop();
      this.checkout.hide();
    }
  }

  private async watch(): Promise<void> {
    const { tripId, fromStopId, toStopId } = this.journey;
    let resumeToken = "";
    await follow<SeatUpdate>(
      (connection) =>
        bookings(this.session).watchSeats({ tripId, fromStopId, toStopId, resumeToken }, { signal: connection }),
      {
        message: (update) => {
          resumeToken = update.resumeToken || resumeToken;
          this.heard = performance.now();
          this.take(update);
          return update.update.case === "drain";
        },
        state: (state) => {
          this.connection = state;
          showConnection(state);
          this.say();
        },
        end: (refusal) => {
          this.ended = refusal === undefined ? "The bus has left this stop: seats are not sold any more." : refusalOf(refusal).text;
          showConnection("idle");
          this.panel.close();
          this.say();
        },
      },
      this.signal,
    );
  }

  private take(update: SeatUpdate): void {
    const first = this.board.layout === undefined;
    const changed = this.board.take(update);
    this.panel.check();
    this.draw();
    if (!first) for (const seatNumber of changed) this.map.flash(seatNumber);
    this.say();
  }

  private draw(): void {
    this.map.draw(this.panel.chosen, this.panel.mine);
    this.checkout?.fit(this.panel.settled);
    find("#free-count").textContent = `${this.board.freeCount} seats free`;
  }

  /** Say what is to be known of the plan: that it is old, late, or all is well. */
  private say(): void {
    const silent = performance.now() - this.heard > SILENCE_NOTICED_MS;
    let words = "";
    if (this.ended !== "") words = this.ended;
    else if (this.connection === "lost" && this.heard > 0) {
      words = "Connection lost. These are the seats as they were last; they are brought up to date as soon as it is back.";
    } else if (this.connection === "live" && silent) words = "Nothing was heard for a while: seats may have changed meanwhile.";
    else if (this.board.degraded) words = "Live updates are slow at the moment: changes may show a second late. Holding a seat is as sure as ever.";
    else if (this.board.layout !== undefined && !this.board.onSale) words = "Seats for this journey are not on sale now.";
    else if (this.board.skipped) words = "Some changes came too fast to show; what you see now is right.";
    if (this.note.textContent !== words) this.note.textContent = words;
    this.section.dataset["stale"] = String(this.ended !== "" || this.connection === "lost" || silent);
  }

  private async resumeHold(): Promise<void> {
    try {
      const { tripId, fromStopId, toStopId } = this.journey;
      const { holds } = await persist(() => bookings(this.session).listHolds({ tripId }));
      if (this.signal.aborted) return;
      const same = holds.filter((hold) => hold.fromStopId === fromStopId && hold.toStopId === toStopId);
      const paying = same.find(({ state }) => state === HoldState.PAYING);
      this.panel.resume(same.find(({ state }) => state === HoldState.ACTIVE));
      this.panel.payingNow(paying);
    } catch {
      // The plan is there all the same, and holding says what is wrong.
    }
  }

  private showHold(hold: Hold | undefined): void {
    if (hold === undefined) this.checkout?.hide();
    else this.checkout?.show(hold);
    this.draw();
  }

  private booked(booking: Booking): void {
    this.openBooking(booking.bookingId);
  }

  private async refused({ reason, text }: Refusal): Promise<void> {
    // Then the hold keeps nothing any more, and its form goes with it.
    const gone = ["PAYMENT_FAILED", "HOLD_EXPIRED", "HOLD_NOT_ACTIVE", "HOLD_NOT_YOURS", "TRIP_CANCELLED", "TRIP_DEPARTED"];
    if (!gone.includes(reason)) return;
    this.panel.lose(text);
    await this.resumeHold();
  }

  private headline(trip: Trip): void {
    const from = this.stop(trip, this.journey.fromStopId);
    const to = this.stop(trip, this.journey.toStopId);
    find("#journey h2").textContent = `${from?.displayName ?? ""} → ${to?.displayName ?? ""}`;
    const platform = from?.platform ? ` · ${from.platform}` : "";
    const times = `${sayMoment(departureOf(from), trip.timeZone)} – ${sayTime(arrivalOf(to), trip.timeZone)}`;
    find("#journey .facts").textContent = `${times}${platform} · ${trip.displayName}`;
  }

  private stop(trip: Trip, stopId: string): TripStop | undefined {
    return trip.stops.find((stop) => stop.stopId === stopId);
  }

  private announce(sentence: string): void {
    // Said again even if it is the same sentence.
    find("#said").replaceChildren(element("span", sentence));
  }
}
