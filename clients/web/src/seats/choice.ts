// The person's choice of seats and the hold that keeps them.
import { type Hold, HoldState } from "../../gen/wayfare/booking/v1/hold_pb.js";
import { SeatState } from "../../gen/wayfare/booking/v1/seat_map_pb.js";
import type { Money } from "../../gen/google/type/money_pb.js";
import { field } from "../login.js";
import type { Session } from "../session.js";
import { find } from "../text.js";
import type { SeatBoard } from "./board.js";
import { bookings, persist, RequestIds } from "./calls.js";
import { Countdown, durationMs } from "./countdown.js";
import { say, sumOf } from "./money.js";
import type { Mark } from "./plan.js";
import type { Chosen } from "./search.js";
import { refusalOf } from "./words.js";

export interface ChoiceEvents {
  /** Says that marks on the plan are others. */
  changed(): void;
  /** Gives the hold that counts now, or none. */
  held(hold: Hold | undefined): void;
  /** Says that a hold is being paid by a booking. */
  paying(bookingId: string): void;
  announce(sentence: string): void;
}

const TAKEN_WORDS: Record<Mark, string> = {
  held: "is held by somebody else. It may come free again.",
  booked: "is sold on part of this journey.",
  blocked: "is not for sale.",
  free: "",
  chosen: "",
  mine: "",
};

/** Holds what is chosen and what is held; its buttons change both. */
export class ChoicePanel {
  readonly chosen = new Set<string>();
  readonly mine = new Set<string>();
  private readonly message = find<HTMLElement>("#choice-message");
  private readonly holdBox = find<HTMLElement>("#hold");
  private readonly holdButton = find<HTMLButtonElement>("#hold-seats");
  private readonly best = find<HTMLFormElement>("#best");
  private readonly extendButton = find<HTMLButtonElement>("#extend");
  private readonly ids = new RequestIds();
  private readonly countdown: Countdown;
  private hold: Hold | undefined;
  private asking = false;
  private closed = false;

  constructor(
    private readonly session: Session,
    private readonly journey: Chosen,
    private readonly board: SeatBoard,
    private readonly events: ChoiceEvents,
  ) {
    this.countdown = new Countdown(find("#countdown"), events.announce, () =>
      this.lose("Your hold has run out, and the seats are free for everybody. Choose seats again."),
    );
  }

  begin(): void {
    this.holdButton.onclick = () => void this.holdChosen();
    this.best.onsubmit = (event) => {
      event.preventDefault();
      void this.holdBest();
    };
    this.extendButton.onclick = () => void this.extend();
    find<HTMLButtonElement>("#release").onclick = () => void this.release();
    this.tell("");
    this.holdBox.hidden = true;
    this.render();
  }

  stop(): void {
    this.countdown.stop();
  }

  /** Let nothing be held any more: the sale is over. */
  close(): void {
    this.closed = true;
    this.render();
  }

  /** Say whether what is chosen is what is held. */
  get settled(): boolean {
    return this.hold !== undefined && same(this.chosen, this.mine);
  }

  /** Take a press on a seat of the plan. */
  press(seatNumber: string, mark: Mark): void {
    if (this.asking || this.closed) return;
    if (mark === "held" || mark === "booked" || mark === "blocked") {
      return this.tell(`Seat ${seatNumber} ${TAKEN_WORDS[mark]}`);
    }
    if (!this.chosen.delete(seatNumber)) this.chosen.add(seatNumber);
    this.tell("");
    this.render();
    this.events.announce(`${this.chosen.size} chosen, ${say(this.price())}.`);
  }

  /** Look at the choice again after seats have changed: what others took is not chosen any more. */
  check(): void {
    // Until the answer is there it is not known whose hold it is.
    if (this.asking) return;
    const lost = [...this.chosen].filter((one) => !this.mine.has(one) && this.board.stateOf(one) !== SeatState.FREE);
    if (lost.length > 0) {
      for (const one of lost) this.chosen.delete(one);
      const what = lost.length === 1 ? `Seat ${lost[0]} was` : `Seats ${lost.join(", ")} were`;
      this.tell(`${what} just taken by somebody else. Choose another.`);
    }
    this.render();
  }

  /** Go on with a hold that was there before, or that the server tells about again. */
  resume(hold: Hold | undefined): void {
    if (this.asking) return;
    if (hold !== undefined) return this.take(hold);
    if (this.hold !== undefined) this.lose("Your hold keeps nothing any more. Choose seats again.");
  }

  payingNow(hold: Hold | undefined): void {
    if (hold !== undefined && hold.bookingId !== "") this.events.paying(hold.bookingId);
  }

  /** Forget the hold, because it keeps nothing any more. */
  lose(why: string): void {
    this.drop();
    this.chosen.clear();
    this.tell(why);
    this.render();
  }

  private drop(): void {
    this.hold = undefined;
    this.mine.clear();
    this.countdown.stop();
    this.holdBox.hidden = true;
    this.events.held(undefined);
  }

  private take(hold: Hold): void {
    if (hold.state !== HoldState.ACTIVE) {
      this.payingNow(hold);
      return this.lose("Your hold keeps nothing any more. Choose seats again.");
    }
    const before = this.hold;
    // A choice that is under way is the person's; one that was settled follows the hold.
    const follows = before === undefined || before.holdId !== hold.holdId || same(this.chosen, this.mine);
    this.hold = hold;
    this.mine.clear();
    for (const { seatNumber } of hold.seats) this.mine.add(seatNumber);
    if (follows) {
      this.chosen.clear();
      for (const one of this.mine) this.chosen.add(one);
    }
    this.holdBox.hidden = false;
    this.holdBox.dataset["hold"] = hold.holdId;
    this.countdown.start(durationMs(hold.remaining));
    const late = hold.degraded ? " Others may see it a second late." : "";
    find("#held-seats").textContent = `${[...this.mine].join(", ")} · ${say(hold.amount)}${late}`;
    this.extendButton.hidden = hold.extensionLeftCount === 0;
    this.render();
    if (before?.holdId !== hold.holdId) {
      this.events.announce(`Held for you: ${[...this.mine].join(", ")}. Enter who travels and pay.`);
    }
    this.events.held(hold);
  }

  private async holdChosen(): Promise<void> {
    const seatNumbers = [...this.chosen].sort();
    if (seatNumbers.length === 0) return;
    await this.ask({ case: "seats", value: { seatNumbers } });
  }

  private async holdBest(): Promise<void> {
    const together = field(this.best, "together").checked;
    const hold = await this.ask({
      case: "bestAvailable",
      value: {
        seatCount: Number(field(this.best, "count").value) || 1,
        accessible: field(this.best, "accessible").checked,
        togetherRequired: together,
      },
    });
    if (hold === undefined || hold.seats.length === 1) return;
    this.tell(hold.together ? "" : "There are not so many seats next to each other; these are as near as can be.");
  }

  private async ask(selection: Selection): Promise<Hold | undefined> {
    const wish = {
      tripId: this.journey.tripId,
      fromStopId: this.journey.fromStopId,
      toStopId: this.journey.toStopId,
      replacedHoldId: this.hold?.holdId ?? "",
      selection,
    };
    return this.change(async () => {
      const requestId = this.ids.for(JSON.stringify(wish));
      const hold = await persist(() => bookings(this.session).holdSeats({ ...wish, requestId }));
      this.ids.done();
      this.tell("");
      this.take(hold);
      return hold;
    });
  }

  private async extend(): Promise<void> {
    const holdId = this.hold?.holdId ?? "";
    const requestId = crypto.randomUUID();
    await this.change(async () => this.take(await persist(() => bookings(this.session).extendHold({ holdId, requestId }))));
  }

  private async release(): Promise<void> {
    const holdId = this.hold?.holdId ?? "";
    const requestId = crypto.randomUUID();
    await this.change(async () => {
      await persist(() => bookings(this.session).releaseHold({ holdId, requestId }));
      this.lose("Your seats are free again.");
    });
  }

  /** Do something that only one press may do at a time, and say what was wrong. */
  private async change<Answer>(work: () => Promise<Answer>): Promise<Answer | undefined> {
    if (this.asking) return undefined;
    this.asking = true;
    this.render();
    try {
      return await work();
    } catch (error) {
      const { reason, text } = refusalOf(error);
      if (reason !== "") this.ids.done();
      if (reason.startsWith("HOLD_") && reason !== "HOLD_EXTENSIONS_USED") this.lose(text);
      this.asking = false;
      this.check();
      this.tell(text);
      return undefined;
    } finally {
      this.asking = false;
      this.check();
      this.events.changed();
    }
  }

  private price(): Money {
    const seats = this.board.layout?.decks.flatMap(({ seats: all }) => all) ?? [];
    const chosen = seats.filter(({ seatNumber }) => this.chosen.has(seatNumber));
    return sumOf(chosen.map(({ seatClassCode }) => this.board.priceOf(seatClassCode)));
  }

  private render(): void {
    const numbers = [...this.chosen].sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
    const words = numbers.length === 0 ? "No seats chosen yet." : `Chosen: ${numbers.join(", ")} · ${say(this.price())}`;
    find("#chosen").textContent = words;
    this.holdButton.hidden = numbers.length === 0 || this.settled;
    this.holdButton.textContent = this.hold === undefined ? `Hold ${count(numbers.length)}` : `Change my hold to ${numbers.join(", ")}`;
    const idle = this.asking || this.closed;
    for (const button of [this.holdButton, this.extendButton, find<HTMLButtonElement>("button", this.best)]) button.disabled = idle;
    this.events.changed();
  }

  private tell(sentence: string): void {
    this.message.textContent = sentence;
  }
}

type Selection =
  | { case: "seats"; value: { seatNumbers: string[] } }
  | { case: "bestAvailable"; value: { seatCount: number; accessible: boolean; togetherRequired: boolean } };

function same(one: ReadonlySet<string>, other: ReadonlySet<string>): boolean {
  return one.size === other.size && [...one].every((seat) => other.has(seat));
}

function count(seats: number): string {
  return seats === 1 ? "1 seat" : `${seats} seats`;
}
