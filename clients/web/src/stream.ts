// A server stream that outlives connections: opened again with the last resume token, after a pause that grows.
import { Code, ConnectError } from "@connectrpc/connect";

const PAUSE_FIRST_MS = 250;
const PAUSE_MOST_MS = 5_000;
// Three heartbeats of the server: a connection that lost its other end says nothing.
export const SILENCE_MS = 45_000;

// What trying again does not change. Everything else passes, or is the network's.
const FINAL = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
  Code.FailedPrecondition,
]);

export interface StreamEvents<Message> {
  /** Takes a message; returns true when the server asked for a new stream. */
  message(message: Message): boolean;
  /** Says how the connection is. */
  state(state: "connecting" | "live" | "lost"): void;
  /** Says that the stream is over: in good order, or refused. */
  end(refusal: ConnectError | undefined): void;
}

/** Return how long to wait before attempt number `attempt` (from 0); random, so that many pages do not come at once. */
export function pauseBefore(attempt: number, random: () => number = Math.random): number {
  const most = Math.min(PAUSE_MOST_MS, PAUSE_FIRST_MS * 2 ** attempt);
  return most / 2 + (random() * most) / 2;
}

/** Follow until the stream ends in good order, is refused, or `signal` is aborted. `open` knows the resume token. */
export async function follow<Message>(
  open: (signal: AbortSignal) => AsyncIterable<Message>,
  events: StreamEvents<Message>,
  signal: AbortSignal,
): Promise<void> {
  let attempt = 0;
  while (!signal.aborted) {
    events.state("connecting");
    const ended = await readOnce(open, events, signal, () => {
      attempt = 0;
    });
    if (signal.aborted) return;
    if (ended === "drained") continue;
    if (ended === "over") return events.end(undefined);
    if (FINAL.has(ended.code)) return events.end(ended);
    events.state("lost");
    await sleep(pauseBefore(attempt++), signal);
  }
}

async function readOnce<Message>(
  open: (signal: AbortSignal) => AsyncIterable<Message>,
  events: StreamEvents<Message>,
  signal: AbortSignal,
  heard: () => void,
): Promise<"drained" | "over" | ConnectError> {
  const connection = new AbortController();
  const stop = () => connection.abort();
  signal.addEventListener("abort", stop);
  let silence = setTimeout(stop, SILENCE_MS);
  try {
    for await (const message of open(connection.signal)) {
      clearTimeout(silence);
      silence = setTimeout(stop, SILENCE_MS);
      heard();
      events.state("live");
      if (events.message(message)) return "drained";
    }
    return "over";
  } catch (error) {
    return ConnectError.from(error);
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", stop);
    stop();
  }
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((wake) => {
    const timer = setTimeout(wake, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      wake();
    });
    // A phone that comes back from a tunnel says so.
    window.addEventListener("online", () => wake(), { once: true });
  });
}
