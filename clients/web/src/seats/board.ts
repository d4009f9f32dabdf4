// What the server says of a journey's seats: a map, and changes on top of it. Pure: no page is needed.
import type { Money } from "../../gen/google/type/money_pb.js";
import type { SeatLayout } from "../../gen/wayfare/booking/v1/layout_pb.js";
import { type SeatMap, SeatState, type SeatUpdate } from "../../gen/wayfare/booking/v1/seat_map_pb.js";

/** Holds the state of every seat of one journey. */
export class SeatBoard {
  layout: SeatLayout | undefined;
  onSale = false;
  degraded = false;
  /** Says that the last snapshot took the place of changes that were not told. */
  skipped = false;
  freeCount = 0;
  private version = 0n;
  private readonly states = new Map<string, SeatState>();
  private readonly prices = new Map<string, Money>();
  private readonly classes = new Map<string, string>();

  /** Take a message of the stream; return the numbers of the seats that are other than before. */
  take({ update }: SeatUpdate): string[] {
    switch (update.case) {
      case "snapshot":
        return this.takeMap(update.value);
      case "changes": {
        const { seatVersion, seats, freeSeatCount } = update.value;
        // A change that a snapshot had already.
        if (seatVersion <= this.version) return [];
        this.version = seatVersion;
        this.freeCount = freeSeatCount;
        return seats.filter(({ seatNumber, state }) => this.set(seatNumber, state)).map(({ seatNumber }) => seatNumber);
      }
      case "heartbeat":
        this.degraded = update.value.degraded;
        return [];
      default:
        return [];
    }
  }

  stateOf(seatNumber: string): SeatState {
    return this.states.get(seatNumber) ?? SeatState.BLOCKED;
  }

  priceOf(seatClassCode: string): Money | undefined {
    return this.prices.get(seatClassCode);
  }

  /** Return what people call a class; empty when there is one only. */
  classNameOf(seatClassCode: string): string {
    return this.classes.size < 2 ? "" : (this.classes.get(seatClassCode) ?? seatClassCode);
  }

  private takeMap(map: SeatMap): string[] {
    this.layout = map.layout ?? this.layout;
    this.version = map.seatVersion;
    this.freeCount = map.freeSeatCount;
    this.onSale = map.onSale;
    this.degraded = map.degraded;
    this.skipped = map.gap;
    for (const { seatClassCode, price } of map.prices) if (price !== undefined) this.prices.set(seatClassCode, price);
    for (const { seatClassCode, displayName } of map.layout?.seatClasses ?? []) this.classes.set(seatClassCode, displayName);
    return map.seats.filter(({ seatNumber, state }) => this.set(seatNumber, state)).map(({ seatNumber }) => seatNumber);
  }

  private set(seatNumber: string, state: SeatState): boolean {
    const changed = this.states.get(seatNumber) !== state;
    this.states.set(seatNumber, state);
    return changed;
  }
}
