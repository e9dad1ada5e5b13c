// Tiles that have been asked for, have come, and have been painted.

import type { Planes } from "./head";
import { keyOf, type HeadRef } from "./payload";
import { Stale } from "./queue";
import { placeKey, TILE, type Place, type Source } from "./source";

export interface Tile {
  place: Place;
  planes: Planes;
}

interface Painted {
  look: string;
  image: HTMLCanvasElement;
}

const KEPT = 72;

export class Tiles {
  private readonly tiles = new Map<string, Tile>();
  private readonly images = new WeakMap<Planes, Painted>();
  private readonly pending = new Set<string>();
  private needed = new Set<string>();

  constructor(
    private readonly source: Source,
    private readonly arrived: () => void,
    private readonly failed: (why: string) => void,
  ) {}

  /** Say which tiles the screen wants from now on; requests for others are dropped. */
  want(ref: HeadRef, hide: number, places: Place[], more: Set<string> = new Set()): void {
    const prefix = `${keyOf(ref)}/${hide}/`;
    this.needed = new Set([...more, ...places.map((p) => prefix + placeKey(p))]);
    for (const place of places) {
      const key = prefix + placeKey(place);
      if (this.tiles.has(key) || this.pending.has(key)) continue;
      this.pending.add(key);
      this.source
        .tile(ref, place, hide, () => this.needed.has(key))
        .then(
          (planes) => {
            this.tiles.set(key, { place, planes });
            for (const old of this.tiles.keys()) {
              if (this.tiles.size <= KEPT) break;
              if (!this.needed.has(old)) this.tiles.delete(old);
            }
          },
          (error: unknown) => {
            if (!(error instanceof Stale)) this.failed(error instanceof Error ? error.message : String(error));
          },
        )
        .finally(() => {
          this.pending.delete(key);
          this.arrived();
        });
    }
  }

  get wanted(): Set<string> {
    return this.needed;
  }

  get(ref: HeadRef, hide: number, place: Place): Planes | undefined {
    const key = `${keyOf(ref)}/${hide}/${placeKey(place)}`;
    const found = this.tiles.get(key);
    if (found) {
      this.tiles.delete(key);
      this.tiles.set(key, found);
    }
    return found?.planes;
  }

  /** What there is of a head, coarsest first, to be shown until the right tiles are there. */
  standIns(ref: HeadRef, hide: number): Tile[] {
    const prefix = `${keyOf(ref)}/${hide}/`;
    const found = [...this.tiles].filter(([key]) => key.startsWith(prefix)).map(([, tile]) => tile);
    return found.sort((a, b) => b.place.zr + b.place.zc - a.place.zr - a.place.zc);
  }

  /** The picture of a tile, painted anew when the look changes. */
  image(planes: Planes, look: string, paint: () => HTMLCanvasElement): HTMLCanvasElement {
    const known = this.images.get(planes);
    if (known?.look === look) return known.image;
    const image = paint();
    this.images.set(planes, { look, image });
    return image;
  }
}

/** The tiles of a level that the columns x0 .. x1 and rows y0 .. y1 touch, those in the middle last. */
export function covering(zr: number, zc: number, x0: number, x1: number, y0: number, y1: number): Place[] {
  const high = TILE * 2 ** zr;
  const wide = TILE * 2 ** zc;
  const places: Place[] = [];
  for (let row = Math.floor(y0 / high); row * high < y1; row++) {
    for (let col = Math.floor(x0 / wide); col * wide < x1; col++) places.push({ zr, zc, row, col });
  }
  const far = (p: Place): number =>
    Math.abs((p.row + 0.5) * high - (y0 + y1) / 2) / high + Math.abs((p.col + 0.5) * wide - (x0 + x1) / 2) / wide;
  return places.sort((a, b) => far(b) - far(a));
}
