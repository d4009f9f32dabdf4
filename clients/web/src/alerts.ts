// What an administrator should see at once: calls for help, error rates, vehicles that enter or leave areas.
import { AlertKind, type AlertUpdate } from "../gen/wayfare/location/v1/fleet_pb.js";
import { GeofenceTransitionKind } from "../gen/wayfare/location/v1/geofence_pb.js";
import { LocationService } from "../gen/wayfare/location/v1/location_service_pb.js";
import type { Session } from "./session.js";
import { follow } from "./stream.js";
import { element, find, milliseconds, timeOfDay } from "./text.js";

const SHOWN_MOST = 50;

/** Follows alerts and lists them, the newest first. */
export class AlertView {
  private readonly section = find<HTMLElement>("#alerts");

  constructor(private readonly chooseTrip: (tripId: string) => void) {}

  /** Follow until `signal` is aborted. */
  async run(session: Session, signal: AbortSignal): Promise<void> {
    let resumeToken = "";
    await follow<AlertUpdate>(
      (connection) => session.client(LocationService).followAlerts({ resumeToken }, { signal: connection }),
      {
        message: (update) => {
          resumeToken = update.resumeToken || resumeToken;
          this.take(update);
          return update.update.case === "drain";
        },
        state: () => undefined,
        end: (refusal) => this.add(element("li", refusal?.rawMessage ?? "The server ended the stream.", "refusal")),
      },
      signal,
    );
  }

  private take({ update }: AlertUpdate): void {
    if (update.case === "alert") {
      const { kind, vehicleId, tripId, raiseTime, summary } = update.value;
      const row = element("li", "", kind === AlertKind.EMERGENCY ? "emergency" : "");
      row.append(element("time", raiseTime === undefined ? "" : timeOfDay(milliseconds(raiseTime))));
      row.append(element("span", summary || vehicleId));
      if (tripId !== "") {
        const button = element("button", "Show") as HTMLButtonElement;
        button.type = "button";
        button.addEventListener("click", () => this.chooseTrip(tripId));
        row.append(button);
      }
      this.add(row);
    } else if (update.case === "geofenceTransition") {
      const { kind, vehicleId, displayName, captureTime } = update.value;
      const words: Record<number, string> = {
        [GeofenceTransitionKind.ENTERED]: "entered",
        [GeofenceTransitionKind.EXITED]: "left",
        [GeofenceTransitionKind.DWELLED]: "stays in",
      };
      const row = element("li", "");
      row.append(element("time", captureTime === undefined ? "" : timeOfDay(milliseconds(captureTime))));
      row.append(element("span", `${vehicleId} ${words[kind] ?? "crossed"} ${displayName}`));
      this.add(row);
    }
  }

  private add(row: HTMLElement): void {
    this.section.hidden = false;
    const list = find("ul", this.section);
    list.prepend(row);
    while (list.children.length > SHOWN_MOST) list.lastElementChild?.remove();
  }
}
