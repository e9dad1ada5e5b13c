// Where maps come from, whoever computes them: the page itself, baked maps, or Python.

import type { Planes } from "./head";
import type { HeadRef } from "./payload";

export const TILE = 256;

/** A tile's place: bins of 2^zr rows and 2^zc columns, TILE x TILE of them. */
export interface Place {
  zr: number;
  zc: number;
  row: number;
  col: number;
}

export const placeKey = (p: Place): string => `${p.zr}.${p.zc}.${p.row}.${p.col}`;

export interface Source {
  /** The finest level that this head has; 0 where single pairs are known. */
  finest(ref: HeadRef): number;
  /** Work through the whole matrix once, telling how far it is; coarse tiles are quick afterwards. */
  overview(ref: HeadRef, hide: number, progress: (done: number) => void, wanted: () => boolean): Promise<void>;
  tile(ref: HeadRef, place: Place, hide: number, wanted: () => boolean): Promise<Planes>;
  /** Weights of rows r0 .. r1 and columns c0 .. c1; NaN where hidden. */
  part(ref: HeadRef, r0: number, r1: number, c0: number, c1: number, hide: number): Promise<Float32Array>;
  /** A map of at most `bins` a side for a thumbnail. */
  thumbnail(ref: HeadRef, bins: number, wanted: () => boolean): Promise<Planes>;
}

/** The least z at which n fits into `bins` bins of 2^z. */
export function levelFor(n: number, bins: number): number {
  let z = 0;
  while (Math.ceil(n / 2 ** z) > bins) z++;
  return z;
}
