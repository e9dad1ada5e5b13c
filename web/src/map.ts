// The map of a head, or of the difference of two: tiles, edges, cursor, marks.

import { drawAxes, type Ink, type Plot } from "./axes";
import { inkOn, paint, paintDifference, shade, shown, type Look } from "./colour";
import { listen } from "./gestures";
import type { Planes } from "./head";
import { number, t } from "./i18n";
import type { HeadRef, LayerData, RecordData } from "./payload";
import { TILE, type Place, type Source } from "./source";
import type { Focus, View } from "./state";
import { covering, Tiles } from "./tiles";
import { keyToken, label, queryToken } from "./tokens";
import { clamp, levelOf, moved, whole, zoomed } from "./view";

/** What is under the cursor: rows i0 .. i1 and columns j0 .. j1, and their planes once they are known. */
export interface Probe {
  i0: number;
  i1: number;
  j0: number;
  j1: number;
  values: Record<"mass" | "max" | "lift" | "uniform", number> | null;
  other: Record<"mass" | "max" | "lift" | "uniform", number> | null;
}

export interface MapScene {
  a: HeadRef;
  b: HeadRef | null;
  record: RecordData;
  layer: LayerData;
  hide: number;
  look: Look;
  ink: Ink;
  focus: Focus | null;
  cursor: { i0: number; i1: number; j0: number; j1: number } | null;
  found: { rows: number[]; cols: number[] };
  view: View;
}

export interface MapEvents {
  view(view: View): void;
  probe(probe: Probe | null): void;
  focus(focus: Focus): void;
  failed(why: string): void;
}

export class MapCanvas {
  readonly canvas = document.createElement("canvas");
  private readonly tiles: Tiles;
  private scene: MapScene | null = null;
  private queued = false;
  private box: [number, number, number, number] | null = null;
  private band: [number, number] | null = null;
  private last: { x: number; y: number } | null = null;

  constructor(
    source: Source,
    private readonly events: MapEvents,
  ) {
    this.tiles = new Tiles(source, () => this.redraw(true), events.failed);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    listen(this.canvas, {
      inset: () => this.plot(),
      pan: (dx, dy) => this.pan(dx, dy),
      zoom: (factor, x, y) => this.zoom(factor, x, y),
      hover: (x, y) => this.hover(x, y),
      leave: () => {
        this.last = null;
        events.probe(null);
      },
      click: (x, y) => this.click(x, y),
      box: (x0, y0, x1, y1, done) => this.boxed(x0, y0, x1, y1, done),
      range: (y0, y1, done) => this.ranged(y0, y1, done),
    });
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
  }

  show(scene: MapScene): void {
    this.scene = scene;
    this.canvas.setAttribute("aria-label", t("mapLabel"));
    this.redraw();
  }

  /** The rectangle of the matrix inside the canvas. */
  plot(): Plot {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const left = w < 480 ? 64 : 96;
    const top = h < 360 ? 48 : 66;
    return { left, top, width: Math.max(40, w - left - 30), height: Math.max(40, h - top - 10) };
  }

  /** The view in the scene, kept within what can be shown. */
  view(): View {
    const plot = this.plot();
    const { view, layer } = this.scene!;
    return clamp(view, layer, plot.width, plot.height);
  }

  cell(x: number, y: number): { i: number; j: number } {
    const plot = this.plot();
    const view = this.view();
    return {
      i: view.y0 + ((y - plot.top) / plot.height) * (view.y1 - view.y0),
      j: view.x0 + ((x - plot.left) / plot.width) * (view.x1 - view.x0),
    };
  }

  pan(dx: number, dy: number): void {
    const plot = this.plot();
    const view = this.view();
    const x = (-dx / plot.width) * (view.x1 - view.x0);
    const y = (-dy / plot.height) * (view.y1 - view.y0);
    this.go(moved(view, x, y));
  }

  zoom(factor: number, x?: number, y?: number): void {
    const plot = this.plot();
    const at = this.cell(x ?? plot.left + plot.width / 2, y ?? plot.top + plot.height / 2);
    this.go(zoomed(this.view(), factor, at.j, at.i));
  }

  go(view: View): void {
    const plot = this.plot();
    this.events.view(clamp(view, this.scene!.layer, plot.width, plot.height));
  }

  fit(): void {
    this.go(whole(this.scene!.layer));
  }

  private level(): { zr: number; zc: number } {
    const plot = this.plot();
    const view = this.view();
    const dense = window.devicePixelRatio || 1;
    const finest = Math.max(this.finestOf(this.scene!.a), this.scene!.b ? this.finestOf(this.scene!.b) : 0);
    return {
      zr: Math.max(finest, levelOf((view.y1 - view.y0) / (plot.height * dense))),
      zc: Math.max(finest, levelOf((view.x1 - view.x0) / (plot.width * dense))),
    };
  }

  finestOf: (ref: HeadRef) => number = () => 0;

  /** What is at a cell, as far as it has been computed. */
  probeAt(i: number, j: number): Probe | null {
    const scene = this.scene!;
    const { rows, cols } = scene.layer;
    if (i < 0 || j < 0 || i >= rows || j >= cols) return null;
    const { zr, zc } = this.level();
    const [bi, bj] = [Math.floor(i) >> zr, Math.floor(j) >> zc];
    const place = { zr, zc, row: Math.floor(bi / TILE), col: Math.floor(bj / TILE) };
    const read = (ref: HeadRef): Probe["values"] => {
      const planes = this.tiles.get(ref, scene.hide, place);
      if (!planes) return null;
      const n = (bi % TILE) * planes.cols + (bj % TILE);
      return { mass: planes.mass[n], max: planes.max[n], lift: planes.lift[n], uniform: planes.uniform[n] };
    };
    return {
      i0: bi << zr,
      i1: Math.min((bi + 1) << zr, rows),
      j0: bj << zc,
      j1: Math.min((bj + 1) << zc, cols),
      values: read(scene.a),
      other: scene.b ? read(scene.b) : null,
    };
  }

  private hover(x: number, y: number): void {
    if (!this.scene) return;
    this.last = { x, y };
    const plot = this.plot();
    const { i, j } = this.cell(x, y);
    const inside = x >= plot.left && y >= plot.top && x < plot.left + plot.width && y < plot.top + plot.height;
    this.canvas.style.cursor = x < plot.left && y > plot.top ? "ns-resize" : "crosshair";
    this.events.probe(inside ? this.probeAt(i, j) : null);
  }

  private click(x: number, y: number): void {
    const plot = this.plot();
    const { i, j } = this.cell(x, y);
    const { rows, cols } = this.scene!.layer;
    const row = Math.max(0, Math.min(rows - 1, Math.floor(i)));
    const col = Math.max(0, Math.min(cols - 1, Math.floor(j)));
    if (y < plot.top && x > plot.left) this.events.focus({ axis: "key", at: col });
    else this.events.focus({ axis: "query", from: row, to: row });
  }

  private boxed(x0: number, y0: number, x1: number, y1: number, done: boolean): void {
    this.box = done ? null : [x0, y0, x1, y1];
    if (done && Math.abs(x1 - x0) > 6 && Math.abs(y1 - y0) > 6) {
      const [a, b] = [this.cell(Math.min(x0, x1), Math.min(y0, y1)), this.cell(Math.max(x0, x1), Math.max(y0, y1))];
      const plot = this.plot();
      // Cells keep their shape: the view grows around the box to that of the plot.
      const now = this.view();
      const ratio = ((now.y1 - now.y0) / plot.height) * (plot.width / (now.x1 - now.x0));
      const wide = Math.max(b.j - a.j, ((b.i - a.i) / ratio) * (plot.width / plot.height));
      const tall = wide * ratio * (plot.height / plot.width);
      const [x, y] = [(a.j + b.j) / 2, (a.i + b.i) / 2];
      this.go({ x0: x - wide / 2, x1: x + wide / 2, y0: y - tall / 2, y1: y + tall / 2 });
    }
    this.redraw();
  }

  private ranged(y0: number, y1: number, done: boolean): void {
    const plot = this.plot();
    const a = this.cell(plot.left, Math.min(y0, y1)).i;
    const b = this.cell(plot.left, Math.max(y0, y1)).i;
    const rows = this.scene!.layer.rows;
    const [from, to] = [Math.max(0, Math.floor(a)), Math.min(rows - 1, Math.floor(b))];
    this.band = done ? null : [from, to + 1];
    if (done) this.events.focus({ axis: "query", from, to: Math.max(from, to) });
    this.redraw();
  }

  redraw(fresh = false): void {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      if (!this.scene || !this.canvas.clientWidth) return;
      this.draw();
      if (fresh && this.last) this.hover(this.last.x, this.last.y);
    });
  }

  private draw(): void {
    const scene = this.scene!;
    const { canvas } = this;
    const dense = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const ctx = canvas.getContext("2d")!;
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    ctx.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const plot = this.plot();
    const view = this.view();
    const { rows, cols } = scene.layer;
    const { zr, zc } = this.level();
    const clip = { x0: Math.max(0, view.x0), x1: Math.min(cols, view.x1), y0: Math.max(0, view.y0), y1: Math.min(rows, view.y1) };
    const places = covering(zr, zc, clip.x0, clip.x1, clip.y0, clip.y1);
    this.tiles.want(scene.a, scene.hide, places);
    if (scene.b) {
      const mine = this.tiles.wanted;
      this.tiles.want(scene.b, scene.hide, places, mine);
    }

    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.left, plot.top, plot.width, plot.height);
    ctx.clip();
    ctx.fillStyle = scene.look.dark ? "#16191f" : "#eeebe3";
    ctx.fillRect(plot.left, plot.top, plot.width, plot.height);
    ctx.imageSmoothingEnabled = false;
    this.drawTiles(ctx, plot, view, places);
    this.drawCells(ctx, plot, view);
    this.drawMarks(ctx, plot, view);
    ctx.restore();
    ctx.strokeStyle = scene.ink.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(plot.left - 0.5, plot.top - 0.5, plot.width + 1, plot.height + 1);

    const cursor = scene.cursor;
    const focus = scene.focus;
    const lit = {
      rows: (cursor ? [cursor.i0, cursor.i1] : focus?.axis === "query" ? [focus.from, focus.to + 1] : null) as [number, number] | null,
      cols: (cursor ? [cursor.j0, cursor.j1] : focus?.axis === "key" ? [focus.at, focus.at + 1] : null) as [number, number] | null,
    };
    const word = (token: string | null): string | null => (token === null ? null : label(token, 16));
    drawAxes(ctx, plot, view, scene.ink, {
      row: (i) => word(queryToken(scene.record, scene.layer, i)),
      col: (j) => word(keyToken(scene.record, j)),
    }, lit);
  }

  private drawTiles(ctx: CanvasRenderingContext2D, plot: Plot, view: View, places: Place[]): void {
    const { a, b, hide, look, layer } = this.scene!;
    const style = JSON.stringify([look, b]);
    const sx = plot.width / (view.x1 - view.x0);
    const sy = plot.height / (view.y1 - view.y0);
    const put = (place: Place, planes: Planes, image: HTMLCanvasElement): void => {
      const [x, y] = [place.col * TILE * 2 ** place.zc, place.row * TILE * 2 ** place.zr];
      // The last bins may be cut short by the end of the matrix.
      const wide = Math.min(planes.cols * 2 ** place.zc, layer.cols - x);
      const tall = Math.min(planes.rows * 2 ** place.zr, layer.rows - y);
      const [px, py] = [plot.left + (x - view.x0) * sx, plot.top + (y - view.y0) * sy];
      ctx.drawImage(image, 0, 0, wide / 2 ** place.zc, tall / 2 ** place.zr, px, py, wide * sx, tall * sy);
    };
    const ready = places.map((place) => ({ place, mine: this.tiles.get(a, hide, place), other: b && this.tiles.get(b, hide, place) }));
    if (b) {
      for (const { place, mine, other } of ready) {
        if (mine && other) put(place, mine, this.tiles.image(mine, style, () => paintDifference(mine, other, look)));
      }
      return;
    }
    if (ready.some((tile) => !tile.mine)) {
      for (const tile of this.tiles.standIns(a, hide)) {
        put(tile.place, tile.planes, this.tiles.image(tile.planes, style, () => paint(tile.planes, look)));
      }
    }
    for (const { place, mine } of ready) {
      if (mine) put(place, mine, this.tiles.image(mine, style, () => paint(mine, look)));
    }
  }

  /** Grid lines between large cells, and their numbers once they fit. */
  private drawCells(ctx: CanvasRenderingContext2D, plot: Plot, view: View): void {
    const { look, a, b, hide } = this.scene!;
    const [w, h] = [plot.width / (view.x1 - view.x0), plot.height / (view.y1 - view.y0)];
    if (Math.min(w, h) < 14) return;
    ctx.fillStyle = look.dark ? "rgb(255 255 255 / 5%)" : "rgb(0 0 0 / 5%)";
    for (let i = Math.ceil(view.y0); i < view.y1; i++) ctx.fillRect(plot.left, plot.top + (i - view.y0) * h, plot.width, 1);
    for (let j = Math.ceil(view.x0); j < view.x1; j++) ctx.fillRect(plot.left + (j - view.x0) * w, plot.top, 1, plot.height);
    if (w < 40 || h < 17 || b) return;
    const { zr, zc } = this.level();
    if (zr || zc) return;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.font = `${Math.min(13, w / 4)}px ${this.scene!.ink.font}`;
    for (let i = Math.floor(view.y0); i < view.y1; i++) {
      for (let j = Math.floor(view.x0); j < view.x1; j++) {
        const planes = this.tiles.get(a, hide, { zr, zc, row: Math.floor(i / TILE), col: Math.floor(j / TILE) });
        if (!planes) continue;
        const n = (i % TILE) * planes.cols + (j % TILE);
        if (!(planes.uniform[n] > 0)) continue;
        const value = shown(planes, n, look);
        ctx.fillStyle = inkOn(shade(look, value));
        const text = look.scale === "uniform" ? value.toPrecision(2) : value >= 0.0095 ? value.toFixed(2).replace(/^0/, "") : "";
        ctx.fillText(text, plot.left + (j + 0.5 - view.x0) * w, plot.top + (i + 0.5 - view.y0) * h);
      }
    }
  }

  private drawMarks(ctx: CanvasRenderingContext2D, plot: Plot, view: View): void {
    const { focus, cursor, found, ink } = this.scene!;
    const [w, h] = [plot.width / (view.x1 - view.x0), plot.height / (view.y1 - view.y0)];
    const x = (j: number): number => plot.left + (j - view.x0) * w;
    const y = (i: number): number => plot.top + (i - view.y0) * h;
    ctx.strokeStyle = ink.accent;
    ctx.lineWidth = 1.5;
    if (focus?.axis === "query") ctx.strokeRect(plot.left - 4, y(focus.from), plot.width + 8, Math.max(1.5, (focus.to + 1 - focus.from) * h));
    if (focus?.axis === "key") ctx.strokeRect(x(focus.at), plot.top - 4, Math.max(1.5, w), plot.height + 8);
    ctx.globalAlpha = 0.9;
    ctx.fillStyle = ink.accent;
    for (const i of found.rows) if (i + 1 > view.y0 && i < view.y1) ctx.fillRect(plot.left, y(i), 7, Math.max(2, h));
    for (const j of found.cols) if (j + 1 > view.x0 && j < view.x1) ctx.fillRect(x(j), plot.top, Math.max(2, w), 7);
    ctx.globalAlpha = 1;
    if (cursor) {
      ctx.fillStyle = this.scene!.look.dark ? "rgb(255 255 255 / 22%)" : "rgb(20 20 40 / 16%)";
      const [cw, ch] = [Math.max(1, (cursor.j1 - cursor.j0) * w), Math.max(1, (cursor.i1 - cursor.i0) * h)];
      // Hair lines up to the cell; the cell itself keeps its colour.
      ctx.fillRect(plot.left, y(cursor.i0) + ch / 2 - 0.5, x(cursor.j0) - plot.left, 1);
      ctx.fillRect(x(cursor.j0) + cw / 2 - 0.5, plot.top, 1, y(cursor.i0) - plot.top);
      ctx.strokeStyle = ink.accent;
      ctx.strokeRect(x(cursor.j0) - 0.75, y(cursor.i0) - 0.75, cw + 1.5, ch + 1.5);
    }
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      ctx.setLineDash([5, 4]);
      ctx.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
      ctx.setLineDash([]);
    }
    if (this.band) {
      ctx.globalAlpha = 0.25;
      ctx.fillStyle = ink.accent;
      ctx.fillRect(plot.left, y(this.band[0]), plot.width, Math.max(2, (this.band[1] - this.band[0]) * h));
      ctx.globalAlpha = 1;
    }
  }

  /** A short text of a probe, for the live region. */
  static words(probe: Probe): string {
    const value = probe.values;
    const what = !value ? "…" : value.uniform > 0 ? number(value.max) : t("hidden");
    return `${t("query")} ${probe.i0}, ${t("key")} ${probe.j0}: ${what}`;
  }
}
