// One booking: how far it is, its tickets with their codes, and cancelling it.
import { type Booking, BookingState, type Passenger, PaymentState } from "../../gen/wayfare/booking/v1/booking_pb.js";
import { PaymentMethod } from "../../gen/wayfare/booking/v1/trip_pb.js";
import { type Ticket, TicketState } from "../../gen/wayfare/booking/v1/ticket_pb.js";
import { tenantKept } from "../login.js";
import type { Session } from "../session.js";
import { element, find } from "../text.js";
import { bookings, persist } from "./calls.js";
import { arrivalOf, departureOf, sayMoment, sayTime } from "./moments.js";
import { nanosOf, say } from "./money.js";
import { stateWord } from "./search.js";
import { gatewayLink, gatewayOf } from "./wallet.js";
import { refusalOf } from "./words.js";

const ASK_EVERY_MS = 1_500;
const ASK_SELDOM_MS = 15_000;
// Larger than shown, so that any width of it is sharp.
const QR_MODULE_PIXELS = 10;

/** Shows one booking until its signal is aborted. */
export class BookingView {
  private readonly section = find<HTMLElement>("#booking");
  private readonly tickets = new Map<string, Ticket>();
  private readonly pictures = new Map<string, string>();
  private checkoutShown = "";
  private askNow: () => void = () => undefined;

  constructor(
    private readonly session: Session,
    private readonly bookingId: string,
    private readonly signal: AbortSignal,
  ) {}

  async run(): Promise<void> {
    this.section.hidden = false;
    this.part(".state").textContent = "Looking for the booking…";
    for (const selector of [".facts", ".tickets", ".payment", ".cancel"]) this.part(selector).replaceChildren();
    find<HTMLElement>(".follow", this.section).hidden = true;
    try {
      await this.ask();
    } catch (error) {
      if (!this.signal.aborted) this.part(".state").textContent = refusalOf(error).text;
    } finally {
      for (const url of this.pictures.values()) URL.revokeObjectURL(url);
    }
  }

  private async ask(): Promise<void> {
    while (!this.signal.aborted) {
      const booking = await persist(() => bookings(this.session).getBooking({ bookingId: this.bookingId }));
      if (this.signal.aborted) return;
      await this.fetchTickets(booking);
      if (this.signal.aborted) return;
      this.render(booking);
      await this.rest(moves(booking) ? ASK_EVERY_MS : ASK_SELDOM_MS);
    }
  }

  private async fetchTickets(booking: Booking): Promise<void> {
    for (const { ticketId } of booking.passengers) {
      const known = this.tickets.get(ticketId);
      const settled = known !== undefined && (known.state === TicketState.VALID) === (booking.state === BookingState.CONFIRMED);
      if (ticketId === "" || settled) continue;
      const request = { ticketId, includeQrPng: true, qrModuleSize: QR_MODULE_PIXELS };
      const ticket = await persist(() => bookings(this.session).getTicket(request));
      this.tickets.set(ticketId, ticket);
      const picture = new Blob([ticket.qrPng as Uint8Array<ArrayBuffer>], { type: "image/png" });
      if (!this.pictures.has(ticketId)) this.pictures.set(ticketId, URL.createObjectURL(picture));
    }
  }

  private render(booking: Booking): void {
    const { journey } = booking;
    const zone = journey?.timeZone ?? "";
    this.section.dataset["state"] = BookingState[booking.state] ?? "";
    this.part("h2").textContent = `${journey?.fromStop?.displayName ?? ""} → ${journey?.toStop?.displayName ?? ""}`;
    const times = `${sayMoment(departureOf(journey?.fromStop), zone)} – ${sayTime(arrivalOf(journey?.toStop), zone)}`;
    this.part(".facts").textContent = `${times} · ${journey?.tripDisplayName ?? ""} · booking ${booking.bookingCode}`;
    const words = sentenceOf(booking);
    // Said once, not with every answer.
    if (this.part(".state").textContent !== words) this.part(".state").textContent = words;
    this.renderPayment(booking);
    const shown = booking.state === BookingState.CONFIRMED || booking.state === BookingState.CANCELLED;
    this.part(".tickets").replaceChildren(...(shown ? booking.passengers.map((one) => this.card(booking, one)) : []));
    const follow = find<HTMLAnchorElement>(".follow", this.section);
    follow.hidden = booking.state !== BookingState.CONFIRMED;
    follow.href = `./?${new URLSearchParams({ tenant: tenantKept(), trip: booking.tripId })}`;
    this.renderCancelling(booking);
  }

  private card(booking: Booking, passenger: Passenger): HTMLElement {
    const ticket = this.tickets.get(passenger.ticketId);
    const card = element("li", "", "ticket");
    card.dataset["ticket"] = passenger.ticketId;
    const words = element("div", "");
    words.append(element("strong", `Seat ${passenger.seatNumber}`), element("span", passenger.fullName));
    words.append(element("span", say(passenger.price), "quiet"));
    const revoked = ticket?.state === TicketState.REVOKED || booking.state === BookingState.CANCELLED;
    if (revoked) words.append(element("span", "Not valid any more.", "refusal"));
    else if (ticket?.state === TicketState.USED) words.append(element("span", "Used to get on.", "quiet"));
    if (ticket?.cashDue !== undefined && !revoked) words.append(element("span", `Pay ${say(ticket.cashDue)} in cash when you get on.`));
    card.append(words);
    const url = this.pictures.get(passenger.ticketId);
    if (url !== undefined && !revoked) {
      const picture = element("img", "", "qr") as HTMLImageElement;
      picture.src = url;
      picture.alt = `QR code of the ticket for seat ${passenger.seatNumber}; show it when you get on`;
      // For people whose phone shows no pictures, and for readers of the page.
      picture.dataset["token"] = ticket?.token ?? "";
      card.append(picture);
    }
    return card;
  }

  private renderPayment(booking: Booking): void {
    const box = this.part(".payment");
    const checkout = booking.payment?.checkout;
    const waits = booking.state === BookingState.PENDING_PAYMENT && checkout !== undefined && checkout.checkoutUrl !== "";
    const key = waits ? checkout.checkoutUrl : "";
    // Made once: a form that is being pressed must not be replaced.
    if (this.checkoutShown === key) return;
    this.checkoutShown = key;
    if (!waits) return box.replaceChildren();
    const name = gatewayOf(booking.amount?.currencyCode ?? "")?.shown ?? checkout.gateway;
    const page = { url: checkout.checkoutUrl, fields: checkout.formFields };
    const until = sayTime(booking.payment?.expireTime, booking.journey?.timeZone ?? "");
    box.replaceChildren(
      gatewayLink(page, `Pay ${say(booking.amount)} on the page of ${name}`),
      element("p", `Your seats are kept until ${until}. This page shows the tickets as soon as the payment has arrived.`, "quiet"),
    );
  }

  private renderCancelling(booking: Booking): void {
    const box = this.part(".cancel");
    const offer = booking.cancellationOffer;
    if (offer === undefined) return box.replaceChildren();
    const key = say(offer.fee);
    // An open question stays open while nothing has changed.
    if (box.dataset["fee"] === key && box.childElementCount > 0) return;
    box.dataset["fee"] = key;
    const open = button("Cancel this booking…", () => {
      const free = nanosOf(offer.fee) === 0n;
      const costs = free ? "Cancelling costs nothing." : `Cancelling costs ${say(offer.fee)}.`;
      const back = nanosOf(offer.refund) === 0n ? "Nothing is paid back." : `You get ${say(offer.refund)} back.`;
      const until = offer.expireTime === undefined ? "" : ` This counts until ${sayMoment(offer.expireTime, booking.journey?.timeZone ?? "")}.`;
      const question = element("p", `${costs} ${back}${until}`);
      const yes = button(free ? "Cancel it" : `Cancel it for ${say(offer.fee)}`, () => void this.cancel(booking));
      yes.className = "danger";
      box.replaceChildren(question, yes, button("Keep the booking", () => {
        box.replaceChildren();
        this.renderCancelling(booking);
      }));
      yes.focus();
    });
    box.replaceChildren(open);
  }

  private async cancel(booking: Booking): Promise<void> {
    const box = this.part(".cancel");
    for (const one of box.querySelectorAll("button")) one.disabled = true;
    const requestId = crypto.randomUUID();
    const maxFee = booking.cancellationOffer?.fee;
    const wish = { bookingId: booking.bookingId, requestId, ...(maxFee === undefined ? {} : { maxFee }) };
    let refusal = "";
    try {
      await persist(() => bookings(this.session).cancelBooking(wish));
    } catch (error) {
      refusal = refusalOf(error).text;
    }
    const now = await persist(() => bookings(this.session).getBooking({ bookingId: this.bookingId })).catch(() => booking);
    if (this.signal.aborted) return;
    box.replaceChildren();
    this.render(now);
    if (refusal !== "") box.prepend(element("p", refusal, "refusal"));
    this.askNow();
  }

  private part(selector: string): HTMLElement {
    return find<HTMLElement>(selector, this.section);
  }

  private rest(pauseMs: number): Promise<void> {
    return new Promise((wake) => {
      const timer = setTimeout(wake, pauseMs);
      this.askNow = () => {
        clearTimeout(timer);
        wake();
      };
      this.signal.addEventListener("abort", this.askNow, { once: true });
    });
  }
}

function button(words: string, press: () => void): HTMLButtonElement {
  const made = element("button", words) as HTMLButtonElement;
  made.type = "button";
  made.addEventListener("click", press);
  return made;
}

/** Say whether a booking goes on by itself. */
function moves({ state, payment, degraded }: Booking): boolean {
  return state === BookingState.PENDING_PAYMENT || payment?.state === PaymentState.REFUND_PENDING || degraded;
}

function sentenceOf(booking: Booking): string {
  const { state, payment, cancellation } = booking;
  const late = booking.degraded ? " Part of the service is away; it goes on by itself." : "";
  switch (state) {
    case BookingState.PENDING_PAYMENT:
      return payment?.method === PaymentMethod.GATEWAY ? `Pay now, and the seats are yours.${late}` : `The payment is under way…${late}`;
    case BookingState.CONFIRMED: {
      const seats = booking.reseated ? "Your payment came late: look at your new seats. " : "";
      return `${seats}Booked. Show the code when you get on.${late}`;
    }
    case BookingState.CANCELLED: {
      const refund = cancellation?.refund;
      if (refund === undefined || nanosOf(refund) === 0n) return "Cancelled. Nothing is to be paid back.";
      return payment?.state === PaymentState.REFUNDED
        ? `Cancelled. ${say(refund)} is back in your wallet.`
        : `Cancelled. ${say(refund)} is on its way back to your wallet.${late}`;
    }
    case BookingState.PAYMENT_FAILED:
      return "The payment was refused. The seats are free again, and no money moved. Choose seats again.";
    case BookingState.EXPIRED:
      return "It was not paid in time, and the seats are free again. A payment that comes yet is not lost.";
    default: {
      const words = stateWord(state);
      return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
    }
  }
}
