// One followed trip: where the vehicle is, what it does at its stops, and when it is expected at the next ones.
import { LocationService } from "../gen/wayfare/location/v1/location_service_pb.js";
import type { Position } from "../gen/wayfare/location/v1/position_pb.js";
import { TripStatus } from "../gen/wayfare/location/v1/trip_pb.js";
import { type StopEta, StopProgressKind, type TripUpdate } from "../gen/wayfare/location/v1/trip_update_pb.js";
import { statusWord } from "./fleet.js";
import type { VehicleMap } from "./map.js";
import type { Session } from "./session.js";
import { follow, type StreamEvents } from "./stream.js";
import { age, element, find, milliseconds, timeOfDay, when } from "./text.js";

/** Follows one trip and shows it. */
export class TripView {
  private readonly section = find<HTMLElement>("#trip");
  private vehicleId = "";
  private status = TripStatus.UNSPECIFIED;
  private position: Position | undefined;
  private boarded: number | undefined;
  private expected: StopEta[] = [];
  private atStop = "";
  private note = "";

  constructor(
    private readonly map: VehicleMap,
    private readonly names: ReadonlyMap<string, string>,
    private readonly found: (vehicleId: string) => void,
    private readonly state: StreamEvents<TripUpdate>["state"],
  ) {}

  /** Follow until `signal` is aborted. */
  async run(session: Session, tripId: string, signal: AbortSignal): Promise<void> {
    this.section.hidden = false;
    this.section.dataset["trip"] = tripId;
    this.render();
    // Minutes pass without the server saying so.
    const clock = window.setInterval(() => this.render(), 1_000);
    let resumeToken = "";
    try {
      await follow<TripUpdate>(
        (connection) => session.client(LocationService).followTrip({ tripId, resumeToken }, { signal: connection }),
        {
          message: (update) => {
            resumeToken = update.resumeToken || resumeToken;
            this.take(update);
            this.render();
            return update.update.case === "drain";
          },
          state: this.state,
          end: (refusal) => {
            this.note = refusal?.rawMessage ?? "This trip has ended.";
            this.expected = [];
            this.render();
          },
        },
        signal,
      );
    } finally {
      window.clearInterval(clock);
    }
  }

  hide(): void {
    this.section.hidden = true;
    delete this.section.dataset["trip"];
  }

  private take({ update, laterStops }: TripUpdate): void {
    switch (update.case) {
      case "snapshot": {
        const { value } = update;
        this.vehicleId = value.vehicleId;
        this.status = value.status;
        this.boarded = value.boarding?.boardedCount;
        this.expected = value.nextStop === undefined ? [] : [value.nextStop, ...value.laterStops];
        this.note = value.degraded ? "Live data is away for now; this is the last that is known." : "";
        if (value.position !== undefined) this.move(value.position);
        this.found(value.vehicleId);
        this.map.follow(value.vehicleId);
        break;
      }
      case "position":
        this.move(update.value);
        break;
      case "status":
        this.status = update.value.status;
        break;
      case "eta":
        this.expected = [update.value, ...laterStops];
        break;
      case "boarding":
        this.boarded = update.value.boardedCount;
        break;
      case "stopProgress":
        this.atStop = update.value.kind === StopProgressKind.ARRIVED ? this.nameOf(update.value.stopId) : "";
        if (update.value.kind !== StopProgressKind.APPROACHING) {
          this.expected = this.expected.filter(({ stopIndex }) => stopIndex > update.value.stopIndex);
        }
        break;
      default:
        break;
    }
  }

  private move(position: Position): void {
    this.position = position;
    const place = position.location;
    if (place === undefined) return;
    const tripId = this.section.dataset["trip"] ?? "";
    const emergency = this.status === TripStatus.EMERGENCY;
    this.map.show({ vehicleId: this.vehicleId, tripId, emergency, chosen: true }, place);
    // For people who cannot see the map, and for tests.
    this.section.dataset["latitude"] = place.latitude.toFixed(6);
    this.section.dataset["longitude"] = place.longitude.toFixed(6);
  }

  private nameOf(stopId: string): string {
    return this.names.get(stopId) ?? stopId;
  }

  private render(): void {
    const now = Date.now();
    find<HTMLElement>("h2", this.section).textContent = this.vehicleId || "Looking for the vehicle…";
    const capture = this.position?.captureTime;
    const facts = [
      statusWord(this.status),
      this.atStop === "" ? "" : `at ${this.atStop}`,
      this.boarded === undefined ? "" : `${this.boarded} on board`,
      capture === undefined ? "" : age(milliseconds(capture), now),
      this.note,
    ];
    find<HTMLElement>(".facts", this.section).textContent = facts.filter((fact) => fact !== "").join(" · ");
    const rows = this.expected.map((stop) => {
      const row = element("li", this.nameOf(stop.stopId));
      const time = stop.expectedArrivalTime;
      if (time !== undefined) {
        row.append(element("time", when(milliseconds(time), now)));
        const earliest = stop.earliestArrivalTime;
        // Whoever must not miss it is there by then.
        if (earliest !== undefined) row.append(element("small", `be there by ${timeOfDay(milliseconds(earliest))}`));
      }
      return row;
    });
    find(".stops", this.section).replaceChildren(...rows);
  }
}
