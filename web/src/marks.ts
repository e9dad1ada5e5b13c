// What is drawn over the tiles of a map: lines between cells, numbers in them, the choice, the cursor, what was found.

import type { Plot } from "./axes";
import { inkOn, shade, shown, type Look } from "./colour";
import type { Planes } from "./head";
import type { Ink } from "./scene";
import type { Focus, View } from "./state";

export interface Bin {
  planes: Planes;
  n: number;
}

export interface Marked {
  look: Look;
  ink: Ink;
  focus: Focus | null;
  cursor: { i0: number; i1: number; j0: number; j1: number } | null;
  found: { rows: number[]; cols: number[] };
}

const sizes = (plot: Plot, view: View): [number, number] => [plot.width / (view.x1 - view.x0), plot.height / (view.y1 - view.y0)];

/** Thin lines between cells. */
export function drawLattice(ctx: CanvasRenderingContext2D, plot: Plot, view: View, dark: boolean): void {
  const [w, h] = sizes(plot, view);
  ctx.fillStyle = dark ? "rgb(255 255 255 / 5%)" : "rgb(0 0 0 / 5%)";
  for (let i = Math.ceil(view.y0); i < view.y1; i++) ctx.fillRect(plot.left, plot.top + (i - view.y0) * h, plot.width, 1);
  for (let j = Math.ceil(view.x0); j < view.x1; j++) ctx.fillRect(plot.left + (j - view.x0) * w, plot.top, 1, plot.height);
}

/** The weight of each cell, in the colour that reads best on it. */
export function drawNumbers(
  ctx: CanvasRenderingContext2D,
  plot: Plot,
  view: View,
  look: Look,
  font: string,
  bin: (i: number, j: number) => Bin | null,
): void {
  const [w, h] = sizes(plot, view);
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.font = `${Math.min(13, w / 4)}px ${font}`;
  for (let i = Math.floor(view.y0); i < view.y1; i++) {
    for (let j = Math.floor(view.x0); j < view.x1; j++) {
      const found = bin(i, j);
      if (!found || !(found.planes.uniform[found.n] > 0)) continue;
      const value = shown(found.planes, found.n, look);
      ctx.fillStyle = inkOn(shade(look, value));
      const text = look.scale === "uniform" ? value.toPrecision(2) : value >= 0.0095 ? value.toFixed(2).replace(/^0/, "") : "";
      ctx.fillText(text, plot.left + (j + 0.5 - view.x0) * w, plot.top + (i + 0.5 - view.y0) * h);
    }
  }
}

/** `box`: corners in pixels of what is being zoomed into; `band`: rows that are being chosen. */
export function drawMarks(
  ctx: CanvasRenderingContext2D,
  plot: Plot,
  view: View,
  { focus, cursor, found, ink, look }: Marked,
  box: [number, number, number, number] | null,
  band: [number, number] | null,
): void {
  const [w, h] = sizes(plot, view);
  const x = (j: number): number => plot.left + (j - view.x0) * w;
  const y = (i: number): number => plot.top + (i - view.y0) * h;
  drawChoice(ctx, plot, focus, ink, { x, y, w, h });
  ctx.lineWidth = 1.5;
  ctx.globalAlpha = 0.9;
  ctx.fillStyle = ink.accent;
  for (const i of found.rows) if (i + 1 > view.y0 && i < view.y1) ctx.fillRect(plot.left, y(i), 7, Math.max(2, h));
  for (const j of found.cols) if (j + 1 > view.x0 && j < view.x1) ctx.fillRect(x(j), plot.top, Math.max(2, w), 7);
  ctx.globalAlpha = 1;
  if (cursor) {
    ctx.fillStyle = look.dark ? "rgb(255 255 255 / 22%)" : "rgb(20 20 40 / 16%)";
    const [cw, ch] = [Math.max(1, (cursor.j1 - cursor.j0) * w), Math.max(1, (cursor.i1 - cursor.i0) * h)];
    // Hair lines up to the cell; the cell itself keeps its colour.
    ctx.fillRect(plot.left, y(cursor.i0) + ch / 2 - 0.5, x(cursor.j0) - plot.left, 1);
    ctx.fillRect(x(cursor.j0) + cw / 2 - 0.5, plot.top, 1, y(cursor.i0) - plot.top);
    ctx.strokeStyle = ink.accent;
    ctx.strokeRect(x(cursor.j0) - 0.75, y(cursor.i0) - 0.75, cw + 1.5, ch + 1.5);
  }
  if (box) {
    const [x0, y0, x1, y1] = box;
    ctx.setLineDash([5, 4]);
    ctx.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
    ctx.setLineDash([]);
  }
  if (band) {
    ctx.globalAlpha = 0.25;
    ctx.fillStyle = ink.accent;
    ctx.fillRect(plot.left, y(band[0]), plot.width, Math.max(2, (band[1] - band[0]) * h));
    ctx.globalAlpha = 1;
  }
}

/** A frame around chosen rows or a column; arrows at its ends where a frame would cover what it frames. */
function drawChoice(
  ctx: CanvasRenderingContext2D,
  plot: Plot,
  focus: Focus | null,
  ink: Ink,
  at: { x(j: number): number; y(i: number): number; w: number; h: number },
): void {
  if (!focus) return;
  const rows = focus.axis === "query";
  const size = rows ? (focus.to + 1 - focus.from) * at.h : at.w;
  const start = rows ? at.y(focus.from) : at.x(focus.at);
  ctx.strokeStyle = ctx.fillStyle = ink.accent;
  if (size >= 5) {
    ctx.lineWidth = 1.5;
    if (rows) ctx.strokeRect(plot.left - 4, start, plot.width + 8, size);
    else ctx.strokeRect(start, plot.top - 4, size, plot.height + 8);
    return;
  }
  const middle = start + size / 2;
  const [low, high] = rows ? [plot.left, plot.left + plot.width] : [plot.top, plot.top + plot.height];
  for (const [tip, base] of [[low + 9, low], [high - 9, high]]) {
    ctx.beginPath();
    for (const [along, aside] of [[tip, 0], [base, -5], [base, 5]]) {
      if (rows) ctx.lineTo(along, middle + aside);
      else ctx.lineTo(middle + aside, along);
    }
    ctx.fill();
  }
  ctx.globalAlpha = 0.35;
  if (rows) ctx.fillRect(plot.left, middle - 0.5, plot.width, 1);
  else ctx.fillRect(middle - 0.5, plot.top, 1, plot.height);
  ctx.globalAlpha = 1;
}
