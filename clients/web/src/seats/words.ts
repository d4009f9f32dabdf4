// What went wrong, in plain words, and what to do next.
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { isAway } from "./calls.js";

export interface Refusal {
  /** The reason of the contract, as in "SEAT_HELD"; empty when there is none. */
  reason: string;
  metadata: Record<string, string>;
  text: string;
}

type Sentence = string | ((facts: Record<string, string>) => string);

const SENTENCES: Record<string, Sentence> = {
  SEAT_HELD: (facts) => `${seats(facts)} just taken by somebody else who is booking. Choose another, or wait: it may come free again.`,
  SEAT_BOOKED: (facts) => `${seats(facts)} sold on part of this journey. Choose another seat.`,
  SEAT_BLOCKED: (facts) => `${seats(facts)} not for sale. Choose another seat.`,
  SEAT_UNKNOWN: "This vehicle has no such seat. Choose one on the plan.",
  SEATS_NOT_AVAILABLE: (facts) =>
    `Only ${facts["free_seats"] ?? "fewer"} seats like that are free. Ask for fewer, another class, or seats that need not be together.`,
  TOO_MANY_SEATS: (facts) => `You may hold ${facts["max_seats"] ?? "no more"} seats on this trip. Choose fewer.`,
  TOO_MANY_HOLDS: "You hold seats on too many trips. Give up one of those holds first.",
  HOLD_EXPIRED: "Your hold has run out, and the seats are free for everybody. Choose seats again.",
  HOLD_NOT_YOURS: "This hold is not yours. Choose seats again.",
  HOLD_NOT_ACTIVE: "This hold was released, or is being paid already. Look under “My bookings”, or choose seats again.",
  HOLD_EXTENSIONS_USED: "The time cannot be extended again. Pay before it runs out.",
  TRIP_UNKNOWN: "There is no such trip. Search again.",
  TRIP_NOT_ON_SALE: "Seats for this journey are not on sale now. Search for another departure.",
  TRIP_DEPARTED: "The bus has left this stop. Search for a later departure.",
  TRIP_CANCELLED: "This trip does not run. Whoever has paid gets the money back. Search for another departure.",
  STOP_NOT_ON_TRIP: "This trip does not go from the one stop to the other. Search again.",
  PASSENGERS_MISMATCH: "Every seat needs one passenger. Check the names.",
  PAYMENT_METHOD_NOT_ALLOWED: "This trip cannot be paid like that. Choose another way to pay.",
  PAYMENT_FAILED: (facts) =>
    facts["ledger_reason"] === "FUNDS_INSUFFICIENT"
      ? "There is not enough money in your wallet, and the seats are free again. Add money, then hold them again."
      : "The payment was refused, and the seats are free again. No money moved. Hold them again and choose another way to pay.",
  BOOKING_NOT_YOURS: "This booking is not yours. Check with which number you are logged in.",
  BOOKING_NOT_CANCELLABLE: "This booking cannot be cancelled any more.",
  CANCELLATION_FEE_CHANGED: "The fee has changed since it was shown. Look at the new one and decide again.",
  TICKET_NOT_YOURS: "This ticket is not yours.",
  GATEWAY_NOT_CONFIGURED: "The operator takes no deposits there. Pay in another way.",
  AMOUNT_INVALID: "The payment page does not take so small or so large an amount. Pay in another way.",
  ROLE_NOT_ALLOWED: "Your account may not do this. Log in with a passenger's account.",
  OVERLOADED: "Too many people are booking at this moment. Try again in a few seconds.",
  RATE_LIMITED: "That was too often in a short time. Wait a minute and try again.",
};

/** Say why a call was refused, for people. */
export function refusalOf(error: unknown): Refusal {
  const refused = ConnectError.from(error);
  const info = refused.findDetails(ErrorInfoSchema)[0];
  const reason = info?.reason ?? "";
  const metadata = info?.metadata ?? {};
  const sentence = SENTENCES[reason];
  if (sentence !== undefined) {
    return { reason, metadata, text: typeof sentence === "string" ? sentence : sentence(metadata) };
  }
  return { reason, metadata, text: withoutReason(refused) };
}

function withoutReason(refused: ConnectError): string {
  if (isAway(refused)) return "The service cannot be reached. Check your connection and try again.";
  if (refused.code === Code.Unauthenticated) return "Your session has ended. Log out and log in again.";
  if (refused.code === Code.ResourceExhausted) return "That was too often in a short time. Wait a minute and try again.";
  return refused.rawMessage || "Something went wrong. Try again.";
}

function seats(facts: Record<string, string>): string {
  const numbers = (facts["seat_numbers"] ?? "").split(",").filter((one) => one !== "");
  if (numbers.length === 0) return "A seat that you chose was";
  return numbers.length === 1 ? `Seat ${numbers[0]} was` : `Seats ${numbers.join(", ")} were`;
}
