// What is on the screen, as one value.

import type { Palette, Pooling, Scale } from "./colour";
import { factsOf, opening } from "./facts";
import type { HeadRef, PageData } from "./payload";

/** The part of the matrix in view, in cells: columns x0 .. x1, rows y0 .. y1. */
export interface View {
  x0: number;
  x1: number;
  y0: number;
  y1: number;
}

/** A chosen query row, a range of rows, or a key column. */
export type Focus = { axis: "query"; from: number; to: number } | { axis: "key"; at: number };

export interface State {
  left: HeadRef;
  right: HeadRef | null;
  difference: boolean;
  view: View | null;
  scale: Scale;
  pooling: Pooling;
  hide: number;
  contrast: number;
  palette: Palette;
  colourBy: string;
  focus: Focus | null;
  panel: "text" | "lines";
  topP: number;
  find: string;
}

/** The first screen: the head that shows a known pattern most clearly, where scores tell of one. */
export function initialState(data: PageData): State {
  const scores = Object.keys(data.records[0].scores);
  const clearest = opening(factsOf(data.records[0], 0));
  return {
    left: clearest?.tops[0].ref ?? { record: 0, layer: 0, head: 0 },
    right: null,
    difference: false,
    view: null,
    scale: "log",
    pooling: "max",
    hide: 0,
    contrast: 0.5,
    palette: "auto",
    colourBy: clearest?.score ?? scores[0] ?? "",
    focus: null,
    panel: "text",
    topP: 0.95,
    find: "",
  };
}
