// Calls that are safe to repeat: the same request id until an answer comes.
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { BookingService } from "../../gen/wayfare/booking/v1/booking_service_pb.js";
import { LedgerService } from "../../gen/wayfare/ledger/v1/ledger_service_pb.js";
import type { Session } from "../session.js";
import { pauseBefore } from "../stream.js";

// About fifteen seconds in all.
const ATTEMPTS_MOST = 8;

export function bookings(session: Session): Client<typeof BookingService> {
  return session.client(BookingService);
}

export function ledger(session: Session): Client<typeof LedgerService> {
  return session.client(LedgerService);
}

/** Say whether a call may not have arrived, or nobody was there to answer. */
export function isAway(error: ConnectError): boolean {
  if (error.code === Code.Unavailable) return true;
  // The browser's own word for a connection that was refused or broke.
  return error.cause instanceof TypeError;
}

/**
 * Call until there is an answer, at most eight times. Only for reads, and for writes whose request id is in `call`: if
 * an answer got lost, the repeated call gets it again and nothing happens twice.
 */
export async function persist<Answer>(call: () => Promise<Answer>): Promise<Answer> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const refusal = ConnectError.from(error);
      if (!isAway(refusal) || attempt + 1 === ATTEMPTS_MOST) throw refusal;
      await new Promise((wake) => setTimeout(wake, pauseBefore(attempt)));
    }
  }
}

/** Give the same wish the same id until it is granted, also when a person presses the button again. */
export class RequestIds {
  private wish = "";
  private id = "";

  for(wish: string): string {
    if (wish !== this.wish) {
      this.wish = wish;
      this.id = crypto.randomUUID();
    }
    return this.id;
  }

  /** Forget the wish: it was granted, or refused for good. */
  done(): void {
    this.wish = "";
  }
}
