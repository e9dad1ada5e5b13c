// The weights that the lower panel shows: of a chosen query, of a range of them, or of a key.

import type { HeadRef, LayerData } from "./payload";
import type { Source } from "./source";
import type { Focus } from "./state";

/** A range of queries is averaged over at most as many of them. */
const MOST_ROWS = 64;

/** The fewest indices whose values hold `share` of the whole, largest first. */
export function heaviest(values: Float32Array, share: number): number[] {
  const order = Array.from(values.keys()).filter((n) => values[n] > 0);
  order.sort((a, b) => values[b] - values[a]);
  let total = 0;
  for (const n of order) total += values[n];
  let sum = 0;
  const kept: number[] = [];
  for (const n of order) {
    if (share < 1 && sum >= share * total) break;
    kept.push(n);
    sum += values[n];
  }
  return kept;
}

/** Weights of the focus along the other axis, averaged over a range of queries. */
export async function weightsOf(source: Source, ref: HeadRef, layer: LayerData, hide: number, focus: Focus): Promise<Float32Array> {
  if (focus.axis === "key") return source.part(ref, 0, layer.rows, focus.at, focus.at + 1, hide);
  const { from, to } = focus;
  const step = Math.ceil((to + 1 - from) / MOST_ROWS);
  const mean = new Float32Array(layer.cols).fill(NaN);
  let rows = 0;
  for (let i = from; i <= to; i += step, rows++) {
    const one = await source.part(ref, i, i + 1, 0, layer.cols, hide);
    for (let j = 0; j < mean.length; j++) if (!Number.isNaN(one[j])) mean[j] = (mean[j] || 0) + one[j];
  }
  for (let j = 0; j < mean.length; j++) mean[j] /= rows;
  return mean;
}
