// The operator's lines and stops, from its timetable: what the map is drawn of, and the names of stops.
import type { FeatureCollection, LineString, Point } from "geojson";

export interface LineProperties {
  name: string;
  color: string;
}

export interface StopProperties {
  stopId: string;
  name: string;
}

export interface Network {
  lines: FeatureCollection<LineString, LineProperties>;
  stops: FeatureCollection<Point, StopProperties>;
}

/** Load the network that was built with the page; an operator without one has vehicles on a plain map. */
export async function loadNetwork(): Promise<Network> {
  const answer = await fetch("network.json");
  if (answer.ok) return (await answer.json()) as Network;
  const nothing = { type: "FeatureCollection" as const, features: [] };
  return { lines: nothing, stops: nothing };
}

/** Return the names of stops by their IDs. */
export function stopNames(network: Network): Map<string, string> {
  return new Map(network.stops.features.map(({ properties }) => [properties.stopId, properties.name]));
}
