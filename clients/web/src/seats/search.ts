// Searching journeys by stops and day, and the person's own bookings.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { SearchTripsRequestSchema } from "../../gen/wayfare/booking/v1/booking_service_pb.js";
import { BookingState } from "../../gen/wayfare/booking/v1/booking_pb.js";
import type { TripOption } from "../../gen/wayfare/booking/v1/trip_pb.js";
import { field } from "../login.js";
import type { Network } from "../network.js";
import type { Session } from "../session.js";
import { element, find } from "../text.js";
import { bookings, persist } from "./calls.js";
import { durationMs } from "./countdown.js";
import { arrivalOf, dateOf, departureOf, sayDay, sayDuration, sayMoment, sayTime, today } from "./moments.js";
import { say } from "./money.js";
import { refusalOf } from "./words.js";

const NEAR_METERS = 300;
const BOOKINGS_SHOWN = 20;

type Wish = MessageInitShape<typeof SearchTripsRequestSchema>;
export type Chosen = Pick<TripOption, "tripId"> & { fromStopId: string; toStopId: string };

/** Shows the search, what it finds, and the person's bookings. */
export class SearchView {
  private readonly form = find<HTMLFormElement>("#search form");
  private readonly options = find<HTMLElement>("#options");
  private wish: Wish = {};

  constructor(
    private readonly session: Session,
    private readonly network: Network,
    private readonly choose: (chosen: Chosen) => void,
    private readonly openBooking: (bookingId: string) => void,
  ) {
    const day = field(this.form, "day");
    day.value ||= today();
    this.listStops();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.search();
    });
  }

  /** Show what the person has booked. */
  async showBookings(): Promise<void> {
    const section = find<HTMLElement>("#bookings");
    try {
      const mine = await persist(() => bookings(this.session).listBookings({ pageSize: BOOKINGS_SHOWN }));
      section.hidden = mine.bookings.length === 0;
      const rows = mine.bookings.map((booking) => {
        const { fromStop, toStop, timeZone } = booking.journey ?? {};
        const row = element("li", "");
        const button = element("button", booking.bookingCode) as HTMLButtonElement;
        button.type = "button";
        button.addEventListener("click", () => this.openBooking(booking.bookingId));
        const way = `${fromStop?.displayName ?? ""} → ${toStop?.displayName ?? ""}`;
        row.append(button, element("span", `${way}, ${sayMoment(departureOf(fromStop), timeZone ?? "")}`));
        row.append(element("span", stateWord(booking.state), "quiet"));
        return row;
      });
      find("ul", section).replaceChildren(...rows);
    } catch {
      // Who only wants to search need not know.
      section.hidden = true;
    }
  }

  private async search(): Promise<void> {
    const day = dateOf(field(this.form, "day").value);
    if (day === undefined) return;
    this.wish = {
      origin: this.place("from", "fromStopId", "fromLocation"),
      destination: this.place("to", "toStopId", "toLocation"),
      radiusMeters: NEAR_METERS,
      departureDate: day,
      passengerCount: Number(field(this.form, "count").value) || 1,
      accessible: field(this.form, "accessible").checked,
    } as Wish;
    this.options.replaceChildren();
    await this.more("");
  }

  private async more(pageToken: string): Promise<void> {
    const button = find<HTMLButtonElement>("button[type=submit]", this.form);
    button.disabled = true;
    try {
      const page = await persist(() => bookings(this.session).searchTrips({ ...this.wish, pageToken }));
      this.options.querySelector(".more")?.remove();
      this.options.append(...page.options.map((option) => this.row(option)));
      if (this.options.children.length === 0) {
        this.options.append(element("li", "No departures were found. Try another day, or stops close by.", "nothing"));
      }
      if (page.nextPageToken !== "") this.options.append(this.moreButton(page.nextPageToken));
    } catch (error) {
      this.options.append(element("li", refusalOf(error).text, "refusal"));
    } finally {
      button.disabled = false;
    }
  }

  private moreButton(pageToken: string): HTMLElement {
    const row = element("li", "", "more");
    const button = element("button", "Later departures") as HTMLButtonElement;
    button.type = "button";
    button.addEventListener("click", () => void this.more(pageToken));
    row.append(button);
    return row;
  }

  private row(option: TripOption): HTMLElement {
    const { fromStop, toStop, timeZone } = option;
    const row = element("li", "", "option");
    row.dataset["trip"] = option.tripId;
    const leaves = departureOf(fromStop);
    const times = `${sayTime(leaves, timeZone)} – ${sayTime(arrivalOf(toStop), timeZone)}`;
    row.append(element("strong", times));
    row.append(element("span", `${sayDay(leaves, timeZone)} · ${sayDuration(durationMs(option.travelDuration))} · ${option.displayName}`, "quiet"));
    row.append(element("span", `${fromStop?.displayName ?? ""} → ${toStop?.displayName ?? ""}`));
    const classes = element("ul", "", "classes");
    for (const one of option.classes) {
      const accessible = one.freeAccessibleSeatCount > 0 ? ` (${one.freeAccessibleSeatCount} accessible)` : "";
      const free = one.freeSeatCount === 0 ? "sold out" : `${one.freeSeatCount} free${accessible}`;
      classes.append(element("li", `${one.displayName} ${say(one.price)} · ${free}`));
    }
    row.append(classes);
    const button = element("button", "Choose seats") as HTMLButtonElement;
    button.type = "button";
    button.className = "primary";
    button.addEventListener("click", () =>
      this.choose({ tripId: option.tripId, fromStopId: fromStop?.stopId ?? "", toStopId: toStop?.stopId ?? "" }),
    );
    row.append(option.onSale ? button : element("span", saleWord(option), "quiet"));
    return row;
  }

  private place(name: string, byId: string, byLocation: string): { case: string; value: unknown } {
    const text = field(this.form, name).value.trim();
    const found = this.network.stops.features.filter(({ properties }) => properties.name === text);
    // Both sides of a street have the same name: whichever the bus calls at is meant.
    const [longitude, latitude] = found[0]?.geometry.coordinates ?? [];
    if (found.length > 1) return { case: byLocation, value: { latitude, longitude } };
    return { case: byId, value: found[0]?.properties.stopId ?? text };
  }

  private listStops(): void {
    const names = new Set(this.network.stops.features.map(({ properties }) => properties.name));
    const options = [...names].sort((one, other) => one.localeCompare(other)).map((name) => new Option(name, name));
    find("#stop-names").replaceChildren(...options);
  }
}

function saleWord(option: TripOption): string {
  if (option.saleChangeTime === undefined) return "Not on sale any more";
  return `On sale from ${sayMoment(option.saleChangeTime, option.timeZone)}`;
}

export function stateWord(state: BookingState): string {
  const words: Record<number, string> = {
    [BookingState.PENDING_PAYMENT]: "waiting for the payment",
    [BookingState.CONFIRMED]: "booked",
    [BookingState.CANCELLED]: "cancelled",
    [BookingState.PAYMENT_FAILED]: "not paid",
    [BookingState.EXPIRED]: "not paid in time",
    [BookingState.CANCELLED_NO_SEAT]: "seats were gone, nothing was paid",
    [BookingState.PAYMENT_RETURNED]: "seats were gone, the money is in your wallet",
  };
  return words[state] ?? "";
}
