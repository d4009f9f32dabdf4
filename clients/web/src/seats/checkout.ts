// Who travels and how it is paid: from a hold to a booking.
import type { Booking } from "../../gen/wayfare/booking/v1/booking_pb.js";
import type { Hold } from "../../gen/wayfare/booking/v1/hold_pb.js";
import { PaymentMethod, type Trip } from "../../gen/wayfare/booking/v1/trip_pb.js";
import type { Session } from "../session.js";
import { element, find } from "../text.js";
import { bookings, persist, RequestIds } from "./calls.js";
import { nanosOf, say } from "./money.js";
import { availableIn, beginDeposit, gatewayLink, gatewayOf, missing } from "./wallet.js";
import { refusalOf, type Refusal } from "./words.js";

const BALANCE_EVERY_MS = 3_000;
const DOCUMENTS = ["None", "Identity card", "Passport", "Driving licence", "Student card"];

/** Asks for passengers and payment while a hold lasts. */
export class CheckoutView {
  private readonly form = find<HTMLFormElement>("#checkout");
  private readonly refusal = find<HTMLElement>(".refusal", this.form);
  private readonly shortfall = find<HTMLElement>("#shortfall");
  private readonly submit = find<HTMLButtonElement>("button[type=submit]", this.form);
  private readonly bookingIds = new RequestIds();
  private readonly depositIds = new RequestIds();
  private hold: Hold | undefined;
  private seats = "";
  private waiting = 0;
  private enough = true;
  private fits = true;
  private busy = false;

  constructor(
    private readonly session: Session,
    private readonly trip: Trip,
    private readonly booked: (booking: Booking) => void,
    private readonly refused: (refusal: Refusal) => void,
  ) {
    this.form.onsubmit = (event) => {
      event.preventDefault();
      void this.pay();
    };
    this.form.onchange = () => this.judge();
  }

  /** Show the form for a hold. Names that were typed stay when the seats change. */
  show(hold: Hold): void {
    this.hold = hold;
    this.form.hidden = false;
    this.refusal.hidden = true;
    const seats = hold.seats.map(({ seatNumber }) => seatNumber).join();
    if (this.seats !== seats) {
      this.seats = seats;
      this.buildPassengers(hold);
    }
    this.buildMethods(hold);
    void this.askBalance();
  }

  /** Say whether what is held is what is chosen: only then it can be paid. */
  fit(fits: boolean): void {
    this.fits = fits;
    this.judge();
  }

  hide(): void {
    this.hold = undefined;
    this.form.hidden = true;
    this.stopWaiting();
  }

  private buildPassengers(hold: Hold): void {
    const list = find("#passengers");
    const before = [...list.querySelectorAll<HTMLElement>("fieldset")].map((one) => valuesOf(one));
    const made = hold.seats.map(({ seatNumber, price }, index) => {
      const set = element("fieldset", "");
      set.dataset["seat"] = seatNumber;
      set.append(element("legend", `Seat ${seatNumber}, ${say(price)}`));
      const name = input(set, "Name, as in the document", "name");
      name.required = true;
      name.maxLength = 100;
      name.autocomplete = index === 0 ? "name" : "off";
      const kind = element("select", "") as HTMLSelectElement;
      kind.name = "kind";
      kind.append(...DOCUMENTS.map((word, value) => new Option(word, String(value))));
      labelled(set, "Document", kind);
      const number = input(set, "Number of the document", "number");
      number.maxLength = 32;
      number.pattern = "[A-Za-z0-9 \\-]*";
      number.autocomplete = "off";
      const askNumber = () => {
        number.required = kind.value !== "0";
        number.closest("label")!.hidden = kind.value === "0";
      };
      kind.addEventListener("change", askNumber);
      const typed = before[index];
      if (typed !== undefined) [name.value, kind.value, number.value] = typed;
      askNumber();
      return set;
    });
    list.replaceChildren(...made);
  }

  private buildMethods(hold: Hold): void {
    const box = find("#methods");
    const before = this.method();
    const allowed = this.trip.salesTerms?.paymentMethods ?? [];
    const may = (method: PaymentMethod) => allowed.length === 0 || allowed.includes(method);
    const gateway = gatewayOf(hold.amount?.currencyCode ?? "");
    const made: HTMLElement[] = [];
    if (may(PaymentMethod.WALLET)) made.push(choice(PaymentMethod.WALLET, "Wallet", "balance"));
    if (may(PaymentMethod.GATEWAY) && gateway !== undefined) {
      made.push(choice(PaymentMethod.GATEWAY, `Card, on the page of ${gateway.shown}`));
    }
    if (may(PaymentMethod.CASH)) made.push(choice(PaymentMethod.CASH, "Cash, to the conductor when you get on"));
    box.replaceChildren(...made);
    const radios = [...box.querySelectorAll<HTMLInputElement>("input")];
    const chosen = radios.find(({ value }) => Number(value) === before) ?? radios[0];
    if (chosen !== undefined) chosen.checked = true;
    this.judge();
  }

  private method(): PaymentMethod {
    const chosen = this.form.querySelector<HTMLInputElement>("[name=method]:checked");
    return chosen === null ? PaymentMethod.UNSPECIFIED : (Number(chosen.value) as PaymentMethod);
  }

  private judge(): void {
    const short = this.method() === PaymentMethod.WALLET && !this.enough;
    this.shortfall.hidden = !short;
    this.submit.disabled = this.busy || short || !this.fits || this.method() === PaymentMethod.UNSPECIFIED;
    const amount = say(this.hold?.amount);
    const verbs: Record<number, string> = {
      [PaymentMethod.CASH]: `Book, and pay ${amount} in cash`,
      [PaymentMethod.GATEWAY]: `Go on to pay ${amount}`,
    };
    this.submit.textContent = verbs[this.method()] ?? `Pay ${amount}`;
  }

  private async askBalance(): Promise<void> {
    const { hold } = this;
    const shown = this.form.querySelector(".balance");
    if (hold === undefined || shown === null) return;
    try {
      const available = await availableIn(this.session, hold.amount?.currencyCode ?? "");
      if (this.hold !== hold) return;
      shown.textContent = `You have ${say(available)}.`;
      const lack = missing(hold.amount, available);
      const was = this.enough;
      this.enough = nanosOf(lack) === 0n;
      if (this.enough) {
        if (!was) shown.textContent += " That is enough now.";
        this.stopWaiting();
      } else if (this.waiting === 0) {
        this.offerDeposit(hold, say(lack), () => beginDeposit(this.session, lack, this.depositIds.for(say(lack))));
      }
    } catch (error) {
      shown.textContent = `Your balance is not known now. ${refusalOf(error).text}`;
    }
    this.judge();
  }

  private offerDeposit(hold: Hold, lack: string, begin: () => ReturnType<typeof beginDeposit>): void {
    const gateway = gatewayOf(hold.amount?.currencyCode ?? "");
    this.shortfall.replaceChildren(element("p", `${lack} is missing in your wallet.`));
    if (gateway === undefined) {
      this.shortfall.append(element("p", "Add money at the operator's counter, or pay in another way."));
      return;
    }
    const button = element("button", `Add ${lack}`, "primary") as HTMLButtonElement;
    button.type = "button";
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const page = await begin();
        const link = gatewayLink(page, `Pay ${lack} on the page of ${gateway.shown}`);
        link.id = "deposit";
        this.deposits.replaceChildren(link);
        button.replaceWith(element("p", "It opens in a new tab. This page notices when the money has arrived; your seats stay held meanwhile."));
        this.waiting = window.setInterval(() => void this.askBalance(), BALANCE_EVERY_MS);
      } catch (error) {
        button.disabled = false;
        this.shortfall.append(element("p", refusalOf(error).text, "refusal"));
      }
    });
    this.shortfall.append(button);
  }

  /** Is beside the form, because a gateway may want a form of its own. */
  private get deposits(): HTMLElement {
    return find("#deposits");
  }

  private stopWaiting(): void {
    window.clearInterval(this.waiting);
    this.waiting = 0;
    this.deposits.replaceChildren();
  }

  private async pay(): Promise<void> {
    const { hold } = this;
    if (hold === undefined || this.busy) return;
    const paymentMethod = this.method();
    const passengers = [...this.form.querySelectorAll<HTMLElement>("#passengers fieldset")].map((set) => {
      const [fullName, kind, number] = valuesOf(set);
      const seatNumber = set.dataset["seat"] ?? "";
      return { seatNumber, fullName: fullName.trim(), documentKind: Number(kind), documentNumber: kind === "0" ? "" : number.trim() };
    });
    const byGateway = paymentMethod === PaymentMethod.GATEWAY;
    const wish = {
      holdId: hold.holdId,
      passengers,
      paymentMethod,
      gateway: byGateway ? (gatewayOf(hold.amount?.currencyCode ?? "")?.name ?? "") : "",
      returnUrl: byGateway ? location.href.split("?")[0]! : "",
      allowOtherSeats: find<HTMLInputElement>("[name=other-seats]", this.form).checked,
    };
    this.busy = true;
    this.refusal.hidden = true;
    this.judge();
    try {
      const requestId = this.bookingIds.for(JSON.stringify(wish));
      const booking = await persist(() => bookings(this.session).createBooking({ ...wish, requestId }));
      this.booked(booking);
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal.reason !== "") this.bookingIds.done();
      this.refusal.textContent = refusal.text;
      this.refusal.hidden = false;
      this.refused(refusal);
      void this.askBalance();
    } finally {
      this.busy = false;
      this.judge();
    }
  }
}

function valuesOf(set: HTMLElement): [string, string, string] {
  const value = (name: string) => find<HTMLInputElement>(`[name=${name}]`, set).value;
  return [value("name"), value("kind"), value("number")];
}

function labelled(parent: HTMLElement, words: string, control: HTMLElement): void {
  const label = element("label", words);
  label.append(control);
  parent.append(label);
}

function input(parent: HTMLElement, words: string, name: string): HTMLInputElement {
  const made = element("input", "") as HTMLInputElement;
  made.name = name;
  labelled(parent, words, made);
  return made;
}

function choice(method: PaymentMethod, words: string, noteClass = ""): HTMLElement {
  const label = element("label", "", "choice");
  const radio = element("input", "") as HTMLInputElement;
  radio.type = "radio";
  radio.name = "method";
  radio.value = String(method);
  label.append(radio, element("span", words));
  if (noteClass !== "") label.append(element("span", "", `quiet ${noteClass}`));
  return label;
}
