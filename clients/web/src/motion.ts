// Where a vehicle is shown between two positions: it glides from the last to the newest, and never ahead of it.

export interface Place {
  longitude: number;
  latitude: number;
}

interface Glide {
  from: Place;
  to: Place;
  begin: number;
  milliseconds: number;
}

const GLIDE_MOST_MS = 3_000;
// Farther than any vehicle drives between two positions: it is put there at once.
const JUMP_DEGREES = 0.02;

/** Is a set of moving vehicles by ID. */
export class Motion {
  private readonly glides = new Map<string, Glide>();

  /** Take a new position of a vehicle at a moment in milliseconds. */
  move(vehicleId: string, to: Place, now: number): void {
    const known = this.glides.get(vehicleId);
    const from = known === undefined ? to : placeOf(known, now);
    const far = Math.max(Math.abs(from.latitude - to.latitude), Math.abs(from.longitude - to.longitude));
    const since = known === undefined ? 0 : now - known.begin;
    const milliseconds = far > JUMP_DEGREES ? 0 : Math.min(GLIDE_MOST_MS, since);
    this.glides.set(vehicleId, { from, to, begin: now, milliseconds });
  }

  remove(vehicleId: string): void {
    this.glides.delete(vehicleId);
  }

  clear(): void {
    this.glides.clear();
  }

  /** Return where every vehicle is shown at a moment. */
  *places(now: number): Generator<[string, Place]> {
    for (const [vehicleId, glide] of this.glides) yield [vehicleId, placeOf(glide, now)];
  }

  place(vehicleId: string, now: number): Place | undefined {
    const glide = this.glides.get(vehicleId);
    return glide === undefined ? undefined : placeOf(glide, now);
  }

  /** Say whether anything moves at a moment. */
  moves(now: number): boolean {
    for (const glide of this.glides.values()) if (now < glide.begin + glide.milliseconds) return true;
    return false;
  }
}

function placeOf({ from, to, begin, milliseconds }: Glide, now: number): Place {
  const share = milliseconds === 0 ? 1 : Math.min(1, (now - begin) / milliseconds);
  return {
    longitude: from.longitude + share * (to.longitude - from.longitude),
    latitude: from.latitude + share * (to.latitude - from.latitude),
  };
}
