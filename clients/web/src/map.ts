// The map: the operator's own lines and stops, and vehicles on them. No tiles, glyphs or sprites of anybody else.
import * as maplibregl from "maplibre-gl";
import "maplibre-gl/dist/maplibre-gl.css";
import { Motion, type Place } from "./motion.js";
import type { Network } from "./network.js";

const PAPER = "#f4f3ee";
const FOLLOW_ZOOM = 15;
// Smooth enough for what drives in a city, and a phone's battery lasts.
const DRAW_EVERY_MS = 50;

export interface ShownVehicle {
  vehicleId: string;
  tripId: string;
  emergency: boolean;
  chosen: boolean;
}

/** Shows the network and the vehicles. */
export class VehicleMap {
  private readonly map: maplibregl.Map;
  private readonly motion = new Motion();
  private readonly shown = new Map<string, ShownVehicle>();
  private ready = false;
  private drawn = 0;
  private followed = "";
  private fits = true;

  constructor(
    container: HTMLElement,
    network: Network,
    private readonly choose: (vehicleId: string) => void,
  ) {
    maplibregl.setWorkerUrl(new URL("worker.js", document.baseURI).href);
    const bounds = boundsOf(network);
    this.map = new maplibregl.Map({
      container,
      style: styleOf(network),
      attributionControl: false,
      ...(bounds === undefined ? {} : { bounds, fitBoundsOptions: { padding: 40 } }),
    });
    this.map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "bottom-right");
    // Whoever looks elsewhere on the map wants to stay there.
    for (const gesture of ["dragstart", "wheel"] as const) {
      this.map.on(gesture, () => {
        this.followed = "";
        this.fits = false;
      });
    }
    this.map.on("click", "vehicles", (event) => {
      const vehicleId = event.features?.[0]?.properties["vehicleId"];
      if (typeof vehicleId === "string") this.choose(vehicleId);
    });
    this.map.on("load", () => {
      this.ready = true;
      this.draw();
    });
  }

  show(vehicle: ShownVehicle, place: Place): void {
    this.shown.set(vehicle.vehicleId, vehicle);
    this.motion.move(vehicle.vehicleId, place, performance.now());
    this.wake();
  }

  remove(vehicleId: string): void {
    this.shown.delete(vehicleId);
    this.motion.remove(vehicleId);
    this.wake();
  }

  clear(): void {
    this.shown.clear();
    this.motion.clear();
    this.wake();
  }

  /** Keep a vehicle in the middle until somebody moves the map. */
  follow(vehicleId: string): void {
    this.followed = vehicleId;
    this.fits = false;
    const place = this.motion.place(vehicleId, performance.now());
    if (place !== undefined) this.map.easeTo({ center: center(place), zoom: Math.max(FOLLOW_ZOOM, this.map.getZoom()) });
  }

  unfollow(): void {
    this.followed = "";
  }

  /** Bring all vehicles into view, unless somebody looks at something. */
  fit(): void {
    if (!this.fits) return;
    const bounds = new maplibregl.LngLatBounds();
    for (const [, place] of this.motion.places(performance.now())) bounds.extend(center(place));
    if (!bounds.isEmpty()) this.map.fitBounds(bounds, { padding: 60, maxZoom: FOLLOW_ZOOM, animate: false });
  }

  private wake(): void {
    if (this.drawn !== 0) return;
    this.drawn = window.setTimeout(() => requestAnimationFrame(() => this.draw()), DRAW_EVERY_MS);
  }

  private draw(): void {
    this.drawn = 0;
    if (!this.ready) return;
    const now = performance.now();
    const features = [...this.motion.places(now)].map(([vehicleId, place]) => ({
      type: "Feature" as const,
      properties: { ...this.shown.get(vehicleId) },
      geometry: { type: "Point" as const, coordinates: center(place) },
    }));
    const source = this.map.getSource("vehicles") as maplibregl.GeoJSONSource;
    source.setData({ type: "FeatureCollection", features });
    const followed = this.motion.place(this.followed, now);
    if (followed !== undefined && !this.map.isMoving()) this.map.setCenter(center(followed));
    if (this.motion.moves(now)) this.wake();
  }
}

function center(place: Place): [number, number] {
  return [place.longitude, place.latitude];
}

function boundsOf(network: Network): maplibregl.LngLatBounds | undefined {
  const bounds = new maplibregl.LngLatBounds();
  for (const line of network.lines.features) for (const [longitude, latitude] of line.geometry.coordinates) bounds.extend([longitude ?? 0, latitude ?? 0]);
  return bounds.isEmpty() ? undefined : bounds;
}

function styleOf(network: Network): maplibregl.StyleSpecification {
  const nothing = { type: "FeatureCollection" as const, features: [] };
  return {
    version: 8,
    sources: {
      lines: { type: "geojson", data: network.lines },
      stops: { type: "geojson", data: network.stops },
      vehicles: { type: "geojson", data: nothing },
    },
    layers: [
      { id: "paper", type: "background", paint: { "background-color": PAPER } },
      {
        id: "lines-edge",
        type: "line",
        source: "lines",
        layout: { "line-join": "round", "line-cap": "round" },
        paint: { "line-color": "#ffffff", "line-width": ["interpolate", ["linear"], ["zoom"], 9, 2.5, 15, 9] },
      },
      {
        id: "lines",
        type: "line",
        source: "lines",
        layout: { "line-join": "round", "line-cap": "round" },
        paint: {
          "line-color": ["get", "color"],
          "line-opacity": 0.65,
          "line-width": ["interpolate", ["linear"], ["zoom"], 9, 1.2, 15, 5],
        },
      },
      {
        id: "stops",
        type: "circle",
        source: "stops",
        minzoom: 12,
        paint: {
          "circle-radius": ["interpolate", ["linear"], ["zoom"], 12, 1.5, 16, 5],
          "circle-color": "#ffffff",
          "circle-stroke-color": "#6b6b6b",
          "circle-stroke-width": 1,
        },
      },
      {
        id: "vehicles",
        type: "circle",
        source: "vehicles",
        paint: {
          "circle-radius": ["case", ["get", "chosen"], 11, 7],
          "circle-color": ["case", ["get", "emergency"], "#c5221f", ["!=", ["get", "tripId"], ""], "#0b57d0", "#5f6368"],
          "circle-stroke-color": "#ffffff",
          "circle-stroke-width": 2.5,
        },
      },
    ],
  };
}
