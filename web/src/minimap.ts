// The whole matrix in a corner, with the part in view.

import { paint, type Look } from "./colour";
import { h, prepared } from "./dom";
import type { Planes } from "./head";
import { count, t } from "./i18n";
import type { LayerData } from "./payload";
import type { Ink } from "./scene";
import type { View } from "./state";

export interface MiniScene {
  planes: Planes | null;
  layer: LayerData;
  view: View;
  look: Look;
  ink: Ink;
  found: { rows: number[]; cols: number[] };
}

export class Minimap {
  readonly canvas = h("canvas", { class: "minimap", role: "img", tabindex: 0 });
  private scene: MiniScene | null = null;
  private image: { of: Planes; look: string; canvas: HTMLCanvasElement } | null = null;

  constructor(go: (row: number, col: number) => void) {
    const at = (event: PointerEvent): void => {
      if (!this.scene || !(event.buttons & 1)) return;
      const box = this.canvas.getBoundingClientRect();
      const { rows, cols } = this.scene.layer;
      go(((event.clientY - box.top) / box.height) * rows, ((event.clientX - box.left) / box.width) * cols);
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      at(event);
    });
    this.canvas.addEventListener("pointermove", at);
  }

  show(scene: MiniScene): void {
    this.scene = scene;
    const { canvas } = this;
    const { rows, cols } = scene.layer;
    const { x0, x1, y0, y1 } = scene.view;
    const [a, b] = [Math.max(0, Math.floor(y0)), Math.min(rows, Math.ceil(y1)) - 1];
    const [c, d] = [Math.max(0, Math.floor(x0)), Math.min(cols, Math.ceil(x1)) - 1];
    canvas.setAttribute("aria-label", t("minimapLabel", { a: count(a), b: count(b), c: count(c), d: count(d) }));
    const wide = canvas.clientWidth;
    const tall = Math.round(wide * Math.max(0.25, Math.min(1, rows / cols)));
    canvas.style.height = `${tall}px`;
    const ctx = prepared(canvas, wide, tall);
    if (!ctx) return;
    ctx.fillStyle = scene.ink.hidden;
    ctx.fillRect(0, 0, wide, tall);
    if (scene.planes) {
      const look = JSON.stringify(scene.look);
      if (this.image?.of !== scene.planes || this.image.look !== look) {
        this.image = { of: scene.planes, look, canvas: paint(scene.planes, scene.look) };
      }
      ctx.drawImage(this.image.canvas, 0, 0, wide, tall);
    }
    ctx.fillStyle = scene.ink.accent;
    for (const i of scene.found.rows) ctx.fillRect(0, (i / rows) * tall, 4, 1.5);
    for (const j of scene.found.cols) ctx.fillRect((j / cols) * wide, 0, 1.5, 4);
    const box = [(x0 / cols) * wide, (y0 / rows) * tall, ((x1 - x0) / cols) * wide, ((y1 - y0) / rows) * tall] as const;
    if (x1 - x0 < cols || y1 - y0 < rows) {
      ctx.fillStyle = scene.look.dark ? "rgb(0 0 0 / 45%)" : "rgb(40 36 30 / 22%)";
      ctx.beginPath();
      ctx.rect(0, 0, wide, tall);
      ctx.rect(box[0], box[1], Math.max(box[2], 3), Math.max(box[3], 3));
      ctx.fill("evenodd");
    }
    ctx.strokeStyle = scene.ink.accent;
    ctx.lineWidth = 1.5;
    ctx.strokeRect(box[0], box[1], Math.max(box[2], 3), Math.max(box[3], 3));
  }
}
