// A seat layout as something to draw and to walk on with arrow keys. Pure: no page is needed.
import type { Money } from "../../gen/google/type/money_pb.js";
import type { Seat, SeatLayout } from "../../gen/wayfare/booking/v1/layout_pb.js";
import { FixtureKind } from "../../gen/wayfare/booking/v1/layout_pb.js";
import { SeatState } from "../../gen/wayfare/booking/v1/seat_map_pb.js";
import { say } from "./money.js";

export type Step = "up" | "down" | "left" | "right" | "first" | "last";

/** Is a seat with the middle of its place, in columns and rows from the front left corner of its deck. */
export interface PlacedSeat {
  seat: Seat;
  deckIndex: number;
  x: number;
  y: number;
}

// Nearer in the direction of the arrow than this is the same row or column.
const SAME = 0.25;

/** Return all seats with their places, in the order of the layout. */
export function placeSeats(layout: SeatLayout): PlacedSeat[] {
  return layout.decks.flatMap((deck, deckIndex) =>
    deck.seats.map((seat) => ({
      seat,
      deckIndex,
      x: seat.xRatio === undefined ? seat.columnIndex + 0.5 : seat.xRatio * deck.columnCount,
      y: seat.yRatio === undefined ? seat.rowIndex + 0.5 : seat.yRatio * deck.rowCount,
    })),
  );
}

/** Return the seat to which a key leads, or undefined at the edge. Up and down go on to the next deck. */
export function stepFrom(from: PlacedSeat, step: Step, seats: readonly PlacedSeat[]): PlacedSeat | undefined {
  const here = seats.filter((one) => one.deckIndex === from.deckIndex && one !== from);
  const beside = here.filter((one) => Math.abs(one.y - from.y) < 1 - SAME);
  switch (step) {
    case "left":
      return nearest(beside.filter((one) => one.x < from.x - SAME), (one) => from.x - one.x);
    case "right":
      return nearest(beside.filter((one) => one.x > from.x + SAME), (one) => one.x - from.x);
    case "first":
      return nearest(beside.filter((one) => one.x < from.x), (one) => one.x);
    case "last":
      return nearest(beside.filter((one) => one.x > from.x), (one) => -one.x);
    case "up":
    case "down":
      return ahead(from, step === "down" ? 1 : -1, seats, here);
  }
}

function ahead(
  from: PlacedSeat,
  sign: 1 | -1,
  seats: readonly PlacedSeat[],
  here: readonly PlacedSeat[],
): PlacedSeat | undefined {
  const further = here.filter((one) => (one.y - from.y) * sign > SAME);
  // A place in the same column counts more than one in the very next row: aisles have few seats.
  const found = nearest(further, (one) => Math.abs(one.y - from.y) + 2 * Math.abs(one.x - from.x));
  if (found !== undefined) return found;
  const other = seats.filter((one) => one.deckIndex === from.deckIndex + sign);
  return nearest(other, (one) => one.y * sign * 100 + Math.abs(one.x - from.x));
}

function nearest(seats: readonly PlacedSeat[], distance: (seat: PlacedSeat) => number): PlacedSeat | undefined {
  let best: PlacedSeat | undefined;
  for (const seat of seats) if (best === undefined || distance(seat) < distance(best)) best = seat;
  return best;
}

export type Mark = "free" | "chosen" | "mine" | "held" | "booked" | "blocked";

const MARK_WORDS: Record<Mark, string> = {
  free: "free",
  chosen: "chosen by you",
  mine: "held for you",
  held: "held by somebody else",
  booked: "sold",
  blocked: "not for sale",
};

/** Return how a seat is shown: what the server says, and what the person did. */
export function markOf(state: SeatState, chosen: boolean, mine: boolean): Mark {
  if (chosen) return mine ? "mine" : "chosen";
  // One's own seat that is not wanted any more can be had again.
  if (state === SeatState.FREE || mine) return "free";
  if (state === SeatState.HELD) return "held";
  return state === SeatState.BOOKED ? "booked" : "blocked";
}

/** Say everything about a seat, as "Seat 4A, window, free, 120.00 EGP". */
export function labelOf(seat: Seat, mark: Mark, className: string, price: Money | undefined): string {
  const parts = [
    `Seat ${seat.seatNumber}`,
    seat.window ? "window" : "",
    seat.aisle ? "aisle" : "",
    seat.rearFacing ? "facing backwards" : "",
    seat.accessible ? "accessible, without steps" : "",
    className,
    MARK_WORDS[mark],
    mark === "booked" || mark === "blocked" ? "" : say(price),
  ];
  return parts.filter((part) => part !== "").join(", ");
}

export function fixtureWord(kind: FixtureKind): string {
  const words: Record<number, string> = {
    [FixtureKind.AISLE]: "",
    [FixtureKind.DRIVER]: "Driver",
    [FixtureKind.DOOR]: "Door",
    [FixtureKind.STAIRS]: "Stairs",
    [FixtureKind.TOILET]: "WC",
    [FixtureKind.TABLE]: "Table",
    [FixtureKind.LUGGAGE]: "Luggage",
    [FixtureKind.WHEELCHAIR_PLACE]: "Wheelchair place",
  };
  return words[kind] ?? "";
}
