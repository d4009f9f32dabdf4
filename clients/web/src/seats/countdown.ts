// Counts down from the time that the server says is left: a phone's clock may be wrong.
import type { Duration } from "@bufbuild/protobuf/wkt";

// What a screen reader is told by itself; every second would never stop talking.
const SAID_AT_SECONDS = [120, 60, 30, 10];

export function durationMs(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** Say a time that is left, as "9:05". */
export function minutesAndSeconds(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Shows how long a hold lasts yet. */
export class Countdown {
  private timer = 0;
  private end = 0;
  private said = Infinity;

  constructor(
    private readonly shown: HTMLElement,
    private readonly announce: (sentence: string) => void,
    private readonly over: () => void,
  ) {}

  /** Begin again with what is left by the server's clock. */
  start(remainingMs: number): void {
    this.stop();
    this.end = performance.now() + remainingMs;
    this.said = remainingMs / 1000;
    this.timer = window.setInterval(() => this.tick(), 250);
    this.tick();
  }

  stop(): void {
    window.clearInterval(this.timer);
    this.timer = 0;
  }

  private tick(): void {
    const left = this.end - performance.now();
    this.shown.textContent = minutesAndSeconds(left);
    this.shown.dataset["urgent"] = String(left < 60_000);
    const passed = SAID_AT_SECONDS.find((seconds) => left / 1000 <= seconds && this.said > seconds);
    if (passed !== undefined && left > 0) this.announce(`Your hold ends in ${passed} seconds.`);
    this.said = Math.min(this.said, left / 1000);
    if (left <= 0) {
      this.stop();
      this.over();
    }
  }
}
