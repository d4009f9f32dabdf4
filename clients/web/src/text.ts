// How moments, delays and counts are said.
import type { Timestamp } from "@bufbuild/protobuf/wkt";

export function milliseconds(timestamp: Timestamp): number {
  return Number(timestamp.seconds) * 1000 + timestamp.nanos / 1e6;
}

/** Say when something is: "now", "in 4 min", or the time of day when it is far. */
export function when(moment: number, now: number): string {
  const minutes = Math.round((moment - now) / 60_000);
  if (minutes <= 0) return "now";
  if (minutes < 60) return `in ${minutes} min`;
  return timeOfDay(moment);
}

export function timeOfDay(moment: number): string {
  return new Date(moment).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** Say how old a position is, and nothing while it is fresh. */
export function age(capture: number, now: number): string {
  const seconds = Math.round((now - capture) / 1000);
  return seconds < 20 ? "" : seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}

/** Make an element; text is set as text, never as HTML. */
export function element(tag: string, text: string, className = ""): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className !== "") made.className = className;
  return made;
}

/** Find what index.html has for certain. */
export function find<E extends Element>(selector: string, within: ParentNode = document): E {
  const found = within.querySelector<E>(selector);
  if (found === null) throw new Error(`the page has no ${selector}`);
  return found;
}
