// Dates and times of a journey, in the time zone of its trip.
import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type Date as CalendarDate, DateSchema } from "../../gen/google/type/date_pb.js";
import type { TripStop } from "../../gen/wayfare/booking/v1/trip_pb.js";
import { milliseconds } from "../text.js";

export function departureOf(stop: TripStop | undefined): Timestamp | undefined {
  return stop?.scheduledDepartureTime ?? stop?.scheduledArrivalTime;
}

export function arrivalOf(stop: TripStop | undefined): Timestamp | undefined {
  return stop?.scheduledArrivalTime ?? stop?.scheduledDepartureTime;
}

export function sayTime(moment: Timestamp | undefined, timeZone: string): string {
  return written(moment, timeZone, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

export function sayDay(moment: Timestamp | undefined, timeZone: string): string {
  return written(moment, timeZone, { weekday: "short", day: "numeric", month: "short" });
}

export function sayMoment(moment: Timestamp | undefined, timeZone: string): string {
  return [sayDay(moment, timeZone), sayTime(moment, timeZone)].filter((word) => word !== "").join(", ");
}

/** Say how long something takes, as "6 h 45 min". */
export function sayDuration(lengthMs: number): string {
  const minutes = Math.round(lengthMs / 60_000);
  const hours = Math.floor(minutes / 60);
  return [hours > 0 ? `${hours} h` : "", minutes % 60 > 0 || hours === 0 ? `${minutes % 60} min` : ""].join(" ").trim();
}

/** Read "2027-06-01" as the field of a form has it; undefined when it is none. */
export function dateOf(text: string): CalendarDate | undefined {
  const found = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
  if (found === null) return undefined;
  const [year, month, day] = found.slice(1).map(Number) as [number, number, number];
  return create(DateSchema, { year, month, day });
}

export function today(): string {
  const now = new Date();
  const parts = [now.getFullYear(), now.getMonth() + 1, now.getDate()];
  return parts.map((part) => String(part).padStart(2, "0")).join("-");
}

function written(moment: Timestamp | undefined, timeZone: string, format: Intl.DateTimeFormatOptions): string {
  if (moment === undefined) return "";
  const date = new Date(milliseconds(moment));
  try {
    return date.toLocaleString("en-GB", { ...format, timeZone: timeZone || "UTC" });
  } catch {
    // A zone that this browser does not know.
    return date.toLocaleString("en-GB", { ...format, timeZone: "UTC" });
  }
}
