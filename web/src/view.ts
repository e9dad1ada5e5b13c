// Moving and zooming: arithmetic on the part of the matrix in view.

import type { View } from "./state";

export interface Size {
  rows: number;
  cols: number;
}

/** Beyond this many pixels a cell no longer grows. */
const LARGEST_CELL = 96;
/** One axis may be drawn at most this many times larger than the other, unless it would not be seen otherwise. */
const STRETCH = 4;

/** The whole matrix; square cells where that leaves both axes readable. */
export function whole({ rows, cols }: Size): View {
  return { x0: 0, x1: Math.max(cols, 1), y0: 0, y1: Math.max(rows, 1) };
}

/** `view` kept inside the matrix and within the limits of zoom. */
export function clamp(view: View, size: Size, width: number, height: number): View {
  const axis = (low: number, high: number, n: number, pixels: number): [number, number] => {
    const least = Math.min(n, Math.max(1, pixels / LARGEST_CELL));
    const span = Math.min(Math.max(high - low, least), Math.max(n, 1));
    const middle = (low + high) / 2;
    const start = Math.max(0, Math.min(middle - span / 2, n - span));
    return [start, start + span];
  };
  const [x0, x1] = axis(view.x0, view.x1, size.cols, width);
  const [y0, y1] = axis(view.y0, view.y1, size.rows, height);
  return { x0, x1, y0, y1 };
}

/** Zoom by `factor` (below 1: closer) around the point (x, y) in cells. */
export function zoomed(view: View, factor: number, x: number, y: number): View {
  return {
    x0: x + (view.x0 - x) * factor,
    x1: x + (view.x1 - x) * factor,
    y0: y + (view.y0 - y) * factor,
    y1: y + (view.y1 - y) * factor,
  };
}

export function moved(view: View, dx: number, dy: number): View {
  return { x0: view.x0 + dx, x1: view.x1 + dx, y0: view.y0 + dy, y1: view.y1 + dy };
}

/** A view of `cells` columns around a cell, with the same stretch of axes as before. */
export function around(view: View, row: number, col: number, cells: number): View {
  const ratio = (view.y1 - view.y0) / (view.x1 - view.x0);
  const tall = cells * Math.min(STRETCH, Math.max(1 / STRETCH, ratio));
  return { x0: col - cells / 2, x1: col + cells / 2, y0: row - tall / 2, y1: row + tall / 2 };
}

/** The level whose bins are at least a device pixel. */
export function levelOf(cellsPerPixel: number): number {
  return Math.max(0, Math.ceil(Math.log2(cellsPerPixel) - 1e-6));
}
