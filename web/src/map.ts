// The map of a head, or of the difference of two: tiles, edges, cursor, marks.

import { drawAxes, type Plot } from "./axes";
import { paint, paintDifference, type Look } from "./colour";
import { prepared } from "./dom";
import { listen } from "./gestures";
import type { Planes } from "./head";
import { count, number, t } from "./i18n";
import { drawLattice, drawMarks, drawNumbers, type Bin } from "./marks";
import type { HeadRef, LayerData, RecordData } from "./payload";
import type { Ink } from "./scene";
import { TILE, type Place, type Source } from "./source";
import type { Focus, View } from "./state";
import { covering, Tiles } from "./tiles";
import { keyToken, label, queryToken, quoted } from "./tokens";
import { clamp, levelOf, moved, zoomed } from "./view";

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
  name: string;
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
  /** The part in view changes under the hand. */
  view(view: View): void;
  /** It shall change, smoothly. */
  glide(view: View): void;
  probe(probe: Probe | null): void;
  focus(focus: Focus): void;
  failed(why: string): void;
}

export class MapCanvas {
  readonly canvas = document.createElement("canvas");
  /** Whether it shares the board with others. */
  small = false;
  private readonly tiles: Tiles;
  private scene: MapScene | null = null;
  private queued = false;
  private box: [number, number, number, number] | null = null;
  private band: [number, number] | null = null;
  private last: { x: number; y: number } | null = null;

  constructor(
    private readonly source: Source,
    private readonly events: MapEvents,
  ) {
    this.tiles = new Tiles(source, () => this.redraw(true), events.failed);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    listen(this.canvas, {
      inset: () => this.plot(),
      pan: (dx, dy) => this.pan(dx, dy),
      zoom: (factor, x, y, smooth) => this.zoom(factor, x, y, smooth),
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
    this.canvas.setAttribute("aria-label", `${scene.name}. ${t("mapLabel")}`);
    this.redraw();
  }

  /** What the edges take of the canvas: across, and down. */
  margins(small: boolean): [number, number] {
    const narrow = small || window.innerWidth < 560;
    return narrow ? [64 + 26, 50 + 8] : [92 + 30, 66 + 8];
  }

  /** The rectangle of the matrix inside the canvas. */
  plot(): Plot {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const [across, down] = this.margins(this.small);
    const [left, top] = across < 100 ? [64, 50] : [92, 66];
    return { left, top, width: Math.max(40, w - across), height: Math.max(40, h - down) };
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

  /** Closer for a factor below 1, around a pixel, or the middle. */
  zoom(factor: number, x?: number, y?: number, smooth = false): void {
    const plot = this.plot();
    const at = this.cell(x ?? plot.left + plot.width / 2, y ?? plot.top + plot.height / 2);
    const view = this.within(zoomed(this.view(), factor, at.j, at.i));
    if (smooth) this.events.glide(view);
    else this.go(view);
  }

  go(view: View): void {
    const kept = this.within(view);
    // Several steps may come before the next frame; each goes on from the one before.
    this.scene!.view = kept;
    this.events.view(kept);
  }

  /** `view` within the limits of what this map can show. */
  within(view: View): View {
    const plot = this.plot();
    return clamp(view, this.scene!.layer, plot.width, plot.height);
  }

  private level(): { zr: number; zc: number } {
    const plot = this.plot();
    const view = this.view();
    const dense = window.devicePixelRatio || 1;
    const finest = Math.max(this.source.finest(this.scene!.a), this.scene!.b ? this.source.finest(this.scene!.b) : 0);
    return {
      zr: Math.max(finest, levelOf((view.y1 - view.y0) / (plot.height * dense))),
      zc: Math.max(finest, levelOf((view.x1 - view.x0) / (plot.width * dense))),
    };
  }

  /** Bin (bi, bj) of a level, if its tile is there. */
  private bin(ref: HeadRef, zr: number, zc: number, bi: number, bj: number): Bin | null {
    const planes = this.tiles.get(ref, this.scene!.hide, { zr, zc, row: Math.floor(bi / TILE), col: Math.floor(bj / TILE) });
    return planes ? { planes, n: (bi % TILE) * planes.cols + (bj % TILE) } : null;
  }

  /** What is at a cell, as far as it has been computed. */
  probeAt(i: number, j: number): Probe | null {
    const scene = this.scene!;
    const { rows, cols } = scene.layer;
    if (i < 0 || j < 0 || i >= rows || j >= cols) return null;
    const { zr, zc } = this.level();
    const [bi, bj] = [Math.floor(i) >> zr, Math.floor(j) >> zc];
    const read = (ref: HeadRef): Probe["values"] => {
      const bin = this.bin(ref, zr, zc, bi, bj);
      if (!bin) return null;
      const { planes, n } = bin;
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
      this.events.glide(this.within({ x0: x - wide / 2, x1: x + wide / 2, y0: y - tall / 2, y1: y + tall / 2 }));
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
      this.draw(this.canvas);
      if (fresh && this.last) this.hover(this.last.x, this.last.y);
    });
  }

  /** The map as it is on the screen, at a density of its own. */
  picture(dense: number): HTMLCanvasElement {
    const canvas = document.createElement("canvas");
    if (this.scene) this.draw(canvas, dense);
    return canvas;
  }

  private draw(canvas: HTMLCanvasElement, dense?: number): void {
    const scene = this.scene!;
    const ctx = prepared(canvas, this.canvas.clientWidth, this.canvas.clientHeight, dense);
    if (!ctx) return;
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
    ctx.fillStyle = scene.ink.hidden;
    ctx.fillRect(plot.left, plot.top, plot.width, plot.height);
    ctx.imageSmoothingEnabled = false;
    this.drawTiles(ctx, plot, view, places);
    const { w, h } = { w: plot.width / (view.x1 - view.x0), h: plot.height / (view.y1 - view.y0) };
    if (Math.min(w, h) >= 14) drawLattice(ctx, plot, view, scene.look.dark);
    if (w >= 40 && h >= 17 && !scene.b && !zr && !zc) {
      drawNumbers(ctx, plot, view, scene.look, scene.ink.font, (i, j) => this.bin(scene.a, 0, 0, i, j));
    }
    drawMarks(ctx, plot, view, scene, this.box, this.band);
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
    const word = (token: string | null): string | null => (token === null ? null : label(token, 20));
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

  /** A short text of a probe, for the live region. */
  words(probe: Probe): string {
    const { record, layer } = this.scene!;
    const part = (from: number, to: number, token: string | null): string =>
      to - from > 1 ? `${count(from)}–${count(to - 1)}` : `${count(from)}${token === null ? "" : ` “${quoted(token)}”`}`;
    const say = (values: Probe["values"]): string => (!values ? "…" : values.uniform > 0 ? number(values.max) : t("hidden"));
    const row = part(probe.i0, probe.i1, queryToken(record, layer, probe.i0));
    const col = part(probe.j0, probe.j1, keyToken(record, probe.j0));
    const other = probe.other ? `; ${say(probe.other)}` : "";
    return `${t("query")} ${row}, ${t("key")} ${col}: ${say(probe.values)}${other}`;
  }
}
