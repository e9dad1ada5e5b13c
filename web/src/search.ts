// Where a text occurs among the tokens, as rows and columns of the map.

import type { LayerData, RecordData } from "./payload";
import { search } from "./tokens";

export interface Hits {
  rows: number[];
  cols: number[];
  /** Which column was gone to; -1: none yet. */
  at: number;
}

export const NO_HITS: Hits = { rows: [], cols: [], at: -1 };

export function hitsOf(record: RecordData, layer: LayerData, text: string): Hits {
  const cols = search(record.tokens ?? [], text).filter((j) => j < layer.cols);
  const rows = record.queryTokens
    ? search(record.queryTokens, text).filter((i) => i < layer.rows)
    : cols.map((j) => j - layer.ahead).filter((i) => i >= 0 && i < layer.rows);
  return { rows, cols, at: -1 };
}
