// The fleet: every vehicle of the operator on the map and in a list.
import type { FleetFrame, FleetVehicle } from "../gen/wayfare/location/v1/fleet_pb.js";
import { LocationService } from "../gen/wayfare/location/v1/location_service_pb.js";
import { TripStatus } from "../gen/wayfare/location/v1/trip_pb.js";
import type { VehicleMap } from "./map.js";
import type { Session } from "./session.js";
import { follow, type StreamEvents } from "./stream.js";
import { age, element, find, milliseconds } from "./text.js";

const LISTED_MOST = 200;
const FIT_MS = 5_000;

/** Follows the fleet and shows it. */
export class FleetView {
  private readonly vehicles = new Map<string, FleetVehicle>();
  private readonly section = find<HTMLElement>("#fleet");
  private chosen = "";
  private begin: number | undefined;
  private listed = 0;

  constructor(
    private readonly map: VehicleMap,
    private readonly chooseTrip: (tripId: string) => void,
    private readonly state: StreamEvents<FleetFrame>["state"],
  ) {}

  /** Follow until `signal` is aborted. */
  async run(session: Session, signal: AbortSignal): Promise<void> {
    this.section.hidden = false;
    let resumeToken = "";
    await follow<FleetFrame>(
      (connection) => session.client(LocationService).followFleet({ resumeToken }, { signal: connection }),
      {
        message: (frame) => {
          resumeToken = frame.resumeToken || resumeToken;
          this.take(frame);
          return frame.drain !== undefined;
        },
        state: this.state,
        end: (refusal) => {
          this.map.clear();
          this.section.replaceChildren(element("p", refusal?.rawMessage ?? "The server ended the stream.", "refusal"));
        },
      },
      signal,
    );
  }

  /** Mark the vehicle of a trip; empty marks none. */
  mark(vehicleId: string): void {
    this.chosen = vehicleId;
    for (const vehicle of this.vehicles.values()) this.draw(vehicle);
    this.list();
  }

  tripOf(vehicleId: string): string {
    return this.vehicles.get(vehicleId)?.tripId ?? "";
  }

  private take(frame: FleetFrame): void {
    if (frame.snapshot) {
      // What is not in it has gone, also while the connection was lost.
      const here = new Set(frame.vehicles.map(({ vehicleId }) => vehicleId));
      for (const vehicleId of this.vehicles.keys()) if (!here.has(vehicleId)) this.remove(vehicleId);
    }
    for (const vehicleId of frame.removedVehicleIds) this.remove(vehicleId);
    for (const vehicle of frame.vehicles) {
      this.vehicles.set(vehicle.vehicleId, vehicle);
      this.draw(vehicle);
    }
    // Those who come online within the first seconds are shown too.
    this.begin ??= performance.now();
    if (performance.now() - this.begin < FIT_MS) this.map.fit();
    find<HTMLElement>(".count", this.section).textContent = `${this.vehicles.size} of ${frame.onlineCount} online`;
    this.section.dataset["degraded"] = String(frame.degraded);
    if (this.listed === 0) this.listed = window.setTimeout(() => this.list(), 250);
  }

  private remove(vehicleId: string): void {
    this.vehicles.delete(vehicleId);
    this.map.remove(vehicleId);
  }

  private draw({ vehicleId, tripId, status, position }: FleetVehicle): void {
    const place = position?.location;
    if (place === undefined) return;
    const emergency = status === TripStatus.EMERGENCY;
    this.map.show({ vehicleId, tripId, emergency, chosen: vehicleId === this.chosen }, place);
  }

  private list(): void {
    this.listed = 0;
    const now = Date.now();
    const ordered = [...this.vehicles.values()].sort(
      (one, other) =>
        Number(other.status === TripStatus.EMERGENCY) - Number(one.status === TripStatus.EMERGENCY) ||
        one.vehicleId.localeCompare(other.vehicleId, undefined, { numeric: true }),
    );
    const rows = ordered.slice(0, LISTED_MOST).map((vehicle) => {
      const row = element("li", "");
      const button = element("button", vehicle.vehicleId) as HTMLButtonElement;
      button.type = "button";
      button.disabled = vehicle.tripId === "";
      button.dataset["vehicle"] = vehicle.vehicleId;
      button.setAttribute("aria-pressed", String(vehicle.vehicleId === this.chosen));
      button.addEventListener("click", () => this.chooseTrip(vehicle.tripId));
      const capture = vehicle.position?.captureTime;
      row.append(button, element("span", statusWord(vehicle.status), "status"));
      row.append(element("span", capture === undefined ? "" : age(milliseconds(capture), now), "age"));
      return row;
    });
    // Only what a person can see is made; the map has them all.
    if (ordered.length > LISTED_MOST) rows.push(element("li", `and ${ordered.length - LISTED_MOST} more`));
    find("ul", this.section).replaceChildren(...rows);
  }
}

export function statusWord(status: TripStatus): string {
  const words: Record<number, string> = {
    [TripStatus.STARTED]: "on its way",
    [TripStatus.PAUSED]: "paused",
    [TripStatus.EMERGENCY]: "calls for help",
    [TripStatus.ENDED]: "ended",
  };
  return words[status] ?? "";
}
