// What Python puts into the page; src/regard/viewer/payload.py writes it.

export interface Chunk {
  id: string;
  type: "f2" | "f4" | "i4" | "u1";
  count: number;
  deflated: boolean;
}
export type Halves = Chunk & { scale: number };

export type MaskData =
  | { kind: "all" }
  | { kind: "rows"; each: number; data: Chunk }
  | { kind: "bits"; data: Chunk[] };

export type ModData =
  | { kind: "cap"; cap: number }
  | { kind: "distance"; first: number; data: Chunk[]; q?: Chunk; k?: Chunk }
  | { kind: "bias"; data: Chunk[]; rows: number; cols: number };

export interface LayerData {
  index: number;
  name: string;
  heads: number[];
  rows: number;
  cols: number;
  /** The column that stands beside row 0. */
  ahead: number;
  dim?: number;
  scale?: number;
  q?: Halves[];
  k?: Halves[];
  mask?: MaskData;
  mods?: ModData[];
  sinks?: number[] | null;
  baked?: { level: number; planes: [Chunk, Chunk][] };
  /** Why the layer is baked. */
  why?: string;
}

export interface RecordData {
  title: string;
  tokens: string[] | null;
  queryTokens: string[] | null;
  facts: Record<string, string>;
  scores: Record<string, (number | null)[][]>;
  layers: LayerData[];
  /** Greatest difference to the record's own weights; absent where Python computes. */
  deviation?: number;
}

export interface PageData {
  version: number;
  records: RecordData[];
  /** Where tiles come from when the page holds no numbers. */
  server?: string;
}

/** One head of one layer of one record, by place in the page. */
export interface HeadRef {
  record: number;
  layer: number;
  head: number;
}

export const sameHead = (a: HeadRef | null, b: HeadRef | null): boolean =>
  a === b || (!!a && !!b && a.record === b.record && a.layer === b.layer && a.head === b.head);

export const keyOf = (ref: HeadRef): string => `${ref.record}.${ref.layer}.${ref.head}`;
