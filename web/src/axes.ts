// The two edges of a map: numbers while cells are small, tokens once there is room for each.

import { t } from "./i18n";
import type { Ink } from "./scene";
import type { View } from "./state";

export interface Plot {
  left: number;
  top: number;
  width: number;
  height: number;
}

const ROOM = 11;

/** A step of 1, 2 or 5 times a power of ten that leaves `room` pixels between numbers. */
function step(pixels: number, room: number): number {
  const least = room / pixels;
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least) ?? 10 * power;
}

/** `text` cut so that it takes at most `room` pixels. */
function fitted(ctx: CanvasRenderingContext2D, text: string, room: number): string {
  if (ctx.measureText(text).width <= room) return text;
  const points = Array.from(text);
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (ctx.measureText(`${points.slice(0, middle).join("")}…`).width <= room) low = middle;
    else high = middle - 1;
  }
  return low ? `${points.slice(0, low).join("")}…` : "";
}

export interface AxisTokens {
  row(i: number): string | null;
  col(j: number): string | null;
}

export function drawAxes(
  ctx: CanvasRenderingContext2D,
  plot: Plot,
  view: View,
  ink: Ink,
  tokens: AxisTokens,
  lit: { rows: [number, number] | null; cols: [number, number] | null },
): void {
  drawRows(ctx, plot, view, ink, tokens, lit.rows);
  drawCols(ctx, plot, view, ink, tokens, lit.cols);
}

const within = (n: number, range: [number, number] | null): boolean => range !== null && n >= range[0] && n < range[1];

function drawRows(
  ctx: CanvasRenderingContext2D,
  plot: Plot,
  view: View,
  ink: Ink,
  tokens: AxisTokens,
  lit: [number, number] | null,
): void {
  const cell = plot.height / (view.y1 - view.y0);
  ctx.save();
  ctx.beginPath();
  ctx.rect(0, plot.top - 6, plot.left, plot.height + 12);
  ctx.clip();
  const size = Math.min(13, Math.max(10, cell * 0.62));
  const words = cell >= ROOM && tokens.row(Math.floor(view.y0)) !== null;
  if (!words) {
    ctx.save();
    ctx.translate(plot.left < 80 ? 8 : 22, plot.top + plot.height / 2);
    ctx.rotate(-Math.PI / 2);
    title(ctx, ink, `← ${t("queries")}`, 0, 0);
    ctx.restore();
  }
  const every = words ? 1 : step(cell, 26);
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (let i = Math.ceil(view.y0 / every - 1) * every; i < view.y1; i += every) {
    if (i < Math.floor(view.y0) || i < 0) continue;
    const y = plot.top + (i + 0.5 - view.y0) * cell;
    if (y < plot.top - 4 || y > plot.top + plot.height + 4) continue;
    const on = within(i, lit);
    ctx.fillStyle = on ? ink.accent : ink.text;
    ctx.font = `${on && words ? "600 " : ""}${words ? size : 10.5}px ${ink.font}`;
    ctx.fillText(words ? fitted(ctx, tokens.row(i)!, plot.left - 14) : i.toLocaleString("en-US"), plot.left - 8, y);
    ctx.fillStyle = ink.line;
    if (!words) ctx.fillRect(plot.left - 5, Math.round(y), 4, 1);
  }
  // While rows are too thin for words, the row under the cursor still says its own.
  if (!words && lit && lit[1] - lit[0] >= 1) {
    const y = plot.top + ((lit[0] + lit[1]) / 2 - view.y0) * cell;
    const word = tokens.row(lit[0]);
    plate(ctx, ink, `${lit[0].toLocaleString("en-US")}${word !== null && lit[1] - lit[0] === 1 ? ` ${word}` : ""}`, plot.left - 4, y);
  }
  ctx.restore();
}

function drawCols(
  ctx: CanvasRenderingContext2D,
  plot: Plot,
  view: View,
  ink: Ink,
  tokens: AxisTokens,
  lit: [number, number] | null,
): void {
  const cell = plot.width / (view.x1 - view.x0);
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.left - 6, 0, plot.width + 80, plot.top);
  ctx.clip();
  const words = cell >= ROOM && tokens.col(Math.floor(view.x0)) !== null;
  const size = Math.min(13, Math.max(10, cell * 0.62));
  const every = words ? 1 : step(cell, 56);
  if (!words) title(ctx, ink, `${t("keys")} →`, plot.left + plot.width / 2, plot.top - 42);
  for (let j = Math.ceil(view.x0 / every - 1) * every; j < view.x1; j += every) {
    if (j < Math.floor(view.x0) || j < 0) continue;
    const x = plot.left + (j + 0.5 - view.x0) * cell;
    if (x < plot.left - 4 || x > plot.left + plot.width + 4) continue;
    const on = within(j, lit);
    ctx.fillStyle = on ? ink.accent : ink.text;
    ctx.font = `${on && words ? "600 " : ""}${words ? size : 10.5}px ${ink.font}`;
    if (words) {
      ctx.save();
      ctx.translate(x + 1, plot.top - 8);
      ctx.rotate(-Math.PI / 3);
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      ctx.fillText(fitted(ctx, tokens.col(j)!, (plot.top - 12) / Math.sin(Math.PI / 3)), 0, 0);
      ctx.restore();
    } else {
      ctx.textAlign = "center";
      ctx.textBaseline = "bottom";
      ctx.fillText(j.toLocaleString("en-US"), x, plot.top - 8);
      ctx.fillStyle = ink.line;
      ctx.fillRect(Math.round(x), plot.top - 5, 1, 4);
    }
  }
  if (!words && lit) {
    const x = plot.left + ((lit[0] + lit[1]) / 2 - view.x0) * cell;
    const word = tokens.col(lit[0]);
    const text = `${lit[0].toLocaleString("en-US")}${word !== null && lit[1] - lit[0] === 1 ? ` ${word}` : ""}`;
    ctx.font = `600 11px ${ink.font}`;
    const wide = ctx.measureText(text).width;
    plate(ctx, ink, text, Math.min(x + wide / 2 + 6, plot.left + plot.width + 6), plot.top - 15);
  }
  ctx.restore();
}

function title(ctx: CanvasRenderingContext2D, ink: Ink, text: string, x: number, y: number): void {
  ctx.font = `11px ${ink.font}`;
  ctx.fillStyle = ink.faint;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(text, x, y);
}

/** Text on a small plate whose right end is at x. */
function plate(ctx: CanvasRenderingContext2D, ink: Ink, text: string, x: number, y: number): void {
  ctx.font = `600 11px ${ink.font}`;
  const wide = ctx.measureText(text).width + 10;
  ctx.fillStyle = ink.accent;
  ctx.beginPath();
  ctx.roundRect(x - wide, y - 9, wide, 18, 5);
  ctx.fill();
  ctx.fillStyle = ink.mark;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.fillText(text, x - 5, y + 0.5);
}
