// Queries on the left, keys on the right, a line a weight, for the part of the map in view.

import { heaviest } from "./chosen";
import { css, shades } from "./colour";
import { h, prepared } from "./dom";
import { count, t } from "./i18n";
import type { Scene } from "./scene";
import type { Focus } from "./state";
import { keyToken, label, queryToken } from "./tokens";

/** So many rows and columns are drawn at a time. */
const SHOWN = 48;
const LINE = 18;
const TOP = 16;
/** At most as many lines leave one query. */
const MOST = 64;

/** Rows r0 .. r1 and columns k0 .. k1. */
export interface Window {
  r0: number;
  r1: number;
  k0: number;
  k1: number;
}

/** What the lines show: the rows in view, and the columns that end with them. */
export function windowOf({ layer, state, view }: Scene): Window {
  const { focus } = state;
  let r0 = Math.max(0, Math.floor(view.y0));
  let r1 = Math.min(layer.rows, Math.ceil(view.y1));
  if (r1 - r0 > SHOWN) {
    if (focus?.axis === "query") r0 = Math.max(0, Math.min(layer.rows - SHOWN, focus.from - SHOWN + 8));
    r1 = Math.min(layer.rows, r0 + SHOWN);
  }
  const k0 = Math.max(0, Math.min(r0 + layer.ahead, layer.cols - SHOWN));
  return { r0, r1, k0, k1: Math.min(layer.cols, k0 + SHOWN) };
}

export class Lines {
  readonly canvas = h("canvas", { class: "lines", role: "img" });
  readonly element = h("div", { class: "lines-box", role: "region", tabindex: 0 }, this.canvas);
  /** Which part the lines show, where that is not all. */
  readonly note = h("div", { class: "lines-note" });

  constructor(private readonly choose: (focus: Focus) => void) {}

  /** `values`: rows r0 .. r1 of the weights, every column. */
  draw(scene: Scene, values: Float32Array, { r0, r1, k0, k1 }: Window): void {
    const { layer, record, ink, look, state } = scene;
    const { focus, topP } = state;
    const whole = r1 - r0 === layer.rows && k1 - k0 === layer.cols;
    this.note.textContent = whole
      ? ""
      : t("linesShown", { a: count(r0), b: count(r1 - 1), c: count(k0), d: count(k1 - 1), n: count(SHOWN) });
    const wide = Math.min(760, this.element.clientWidth - 32);
    const tall = Math.max(r1 - r0, k1 - k0) * LINE + TOP;
    this.canvas.style.width = `${wide}px`;
    this.canvas.style.height = `${tall}px`;
    const ctx = prepared(this.canvas, wide, tall);
    if (!ctx) return;
    const [a, b] = [wide * 0.33, wide * 0.67];
    const y = (n: number): number => TOP + n * LINE;
    const chosen = (i: number): boolean => focus?.axis === "query" && focus.from <= i && i <= focus.to;
    const colours = shades(look.palette);
    ctx.lineCap = "round";
    for (let i = r0; i < r1; i++) {
      if (focus?.axis === "query" && !chosen(i)) continue;
      const row = values.subarray((i - r0) * layer.cols, (i - r0 + 1) * layer.cols);
      for (const j of heaviest(row, topP).slice(0, MOST)) {
        if (focus?.axis === "key" && j !== focus.at) continue;
        const w = row[j];
        // Ends outside the window run to its edge and fade.
        const inside = j >= k0 && j < k1;
        const to = inside ? y(j - k0) : j < k0 ? 2 : tall - 2;
        ctx.strokeStyle = css(colours[Math.round((look.dark ? 0.35 + 0.65 * w : 0.4 + 0.6 * w) * (colours.length - 1))]);
        ctx.globalAlpha = Math.min(1, 0.08 + 0.92 * w) * (inside ? 1 : 0.5);
        ctx.lineWidth = 0.75 + 4.5 * w;
        ctx.beginPath();
        ctx.moveTo(a + 8, y(i - r0));
        ctx.bezierCurveTo(a + wide * 0.16, y(i - r0), b - wide * 0.16, to, b - 8, to);
        ctx.stroke();
      }
    }
    ctx.globalAlpha = 1;
    ctx.font = `12.5px ${ink.font}`;
    ctx.textBaseline = "middle";
    const words = (n: number, token: string | null): string => (token === null ? String(n) : label(token));
    ctx.textAlign = "right";
    for (let i = r0; i < r1; i++) {
      ctx.fillStyle = chosen(i) ? ink.accent : ink.text;
      ctx.fillText(words(i, queryToken(record, layer, i)), a, y(i - r0), a - 4);
    }
    ctx.textAlign = "left";
    for (let j = k0; j < k1; j++) {
      ctx.fillStyle = focus?.axis === "key" && focus.at === j ? ink.accent : ink.text;
      ctx.fillText(words(j, keyToken(record, j)), b, y(j - k0), wide - b - 4);
    }
    // Most of what a query reads stands above it.
    if (focus?.axis === "query") this.element.scrollTop = y(focus.from - r0) - 0.8 * this.element.clientHeight;
    this.canvas.onclick = (event) => {
      const n = Math.round((event.offsetY - TOP) / LINE);
      if (event.offsetX < wide / 2 && r0 + n < r1 && n >= 0) this.choose({ axis: "query", from: r0 + n, to: r0 + n });
      else if (event.offsetX >= wide / 2 && k0 + n < k1 && n >= 0) this.choose({ axis: "key", at: k0 + n });
    };
  }
}
