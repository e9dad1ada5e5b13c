// The grid of layers and heads: coloured by a score, or small pictures of their maps.

import { css, inkOn, paint, shades, type Look } from "./colour";
import { h, prepared } from "./dom";
import { number, t } from "./i18n";
import { keyOf, sameHead, type HeadRef, type RecordData } from "./payload";
import { headName, type Ink, type Scene } from "./scene";
import { scoreName } from "./scorewords";
import type { Source } from "./source";

const THUMB = 64;

interface GridScene {
  record: RecordData;
  at: number;
  left: HeadRef;
  right: HeadRef | null;
  colourBy: string;
  look: Look;
  ink: Ink;
}

export class Grid {
  readonly canvas = h("canvas", { class: "grid", tabindex: 0, role: "application" });
  readonly note = h("div", { class: "note", "aria-live": "polite" });
  private scene: GridScene | null = null;
  private readonly pictures = new Map<string, HTMLCanvasElement | null>();
  private hovered: HeadRef | null = null;
  private cursor: { layer: number; head: number } | null = null;
  private look = "";

  constructor(
    private readonly source: Source,
    private readonly pick: (ref: HeadRef, beside: boolean) => void,
  ) {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.hover(this.under(event)));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("click", (event) => {
      const ref = this.under(event);
      if (ref) this.pick(ref, event.shiftKey || event.ctrlKey || event.metaKey);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show({ record, state, look: chosen, ink }: Scene): void {
    const scene: GridScene = { record, at: state.left.record, left: state.left, right: state.right, colourBy: state.colourBy, look: chosen, ink };
    this.scene = scene;
    this.canvas.setAttribute("aria-label", t("gridLabel"));
    const look = JSON.stringify([scene.look, scene.at]);
    if (look !== this.look) {
      this.look = look;
      this.pictures.clear();
    }
    // All layers at once where that leaves cells that can be told apart and hit; else the grid scrolls.
    const room = (this.canvas.parentElement?.clientHeight ?? 0) - 24;
    const fitting = Math.max(15, Math.min(scene.colourBy === "" ? 56 : 32, room / scene.record.layers.length));
    const tall = scene.colourBy === "" ? Math.max(8, Math.min(fitting, this.across())) : fitting;
    this.canvas.style.height = `${Math.ceil(scene.record.layers.length * tall + 24)}px`;
    this.draw();
    this.describe();
  }

  /** Pixels across for each head of the widest layer. */
  private across(): number {
    return (this.canvas.clientWidth - 30) / Math.max(...this.scene!.record.layers.map((l) => l.heads.length));
  }

  /** Cells are square for pictures, and as wide as there is room, up to twice their height, for scores. */
  private size(): { x0: number; y0: number; wide: number; tall: number } {
    const tall = (this.canvas.clientHeight - 22) / this.scene!.record.layers.length;
    const wide = Math.max(4, Math.min(this.across(), this.scene!.colourBy === "" ? tall : 2 * tall));
    return { x0: 26, y0: 20, wide, tall };
  }

  private under(event: MouseEvent): HeadRef | null {
    if (!this.scene) return null;
    const box = this.canvas.getBoundingClientRect();
    const { x0, y0, wide, tall } = this.size();
    const head = Math.floor((event.clientX - box.left - x0) / wide);
    const layer = Math.floor((event.clientY - box.top - y0) / tall);
    const heads = this.scene.record.layers[layer]?.heads.length ?? 0;
    return head >= 0 && head < heads ? { record: this.scene.at, layer, head } : null;
  }

  private hover(ref: HeadRef | null): void {
    if (sameHead(ref, this.hovered)) return;
    this.hovered = ref;
    this.canvas.style.cursor = ref ? "pointer" : "default";
    this.draw();
    this.describe();
  }

  private key(event: KeyboardEvent): void {
    const scene = this.scene!;
    const step: Record<string, [number, number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const at = this.cursor ?? scene.left;
    if (step[event.key]) {
      const layer = Math.max(0, Math.min(scene.record.layers.length - 1, at.layer + step[event.key][0]));
      const head = Math.max(0, Math.min(scene.record.layers[layer].heads.length - 1, at.head + step[event.key][1]));
      this.cursor = { layer, head };
      this.hover({ record: scene.at, layer, head });
    } else if (event.key === "Enter" || event.key === " ") {
      this.pick({ record: scene.at, layer: at.layer, head: at.head }, event.shiftKey);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private value(ref: HeadRef): number | null {
    return this.scene!.record.scores[this.scene!.colourBy]?.[ref.layer]?.[ref.head] ?? null;
  }

  private describe(): void {
    const scene = this.scene!;
    const ref = this.hovered ?? scene.left;
    const layer = scene.record.layers[ref.layer];
    if (!layer || ref.record !== scene.at) return;
    const value = scene.colourBy ? this.value(ref) : null;
    const name = headName(layer, ref.head);
    this.note.textContent = value === null ? name : `${name} — ${scoreName(scene.colourBy)} ${number(Number(value.toPrecision(3)))}`;
  }

  private draw(): void {
    const scene = this.scene;
    const { canvas } = this;
    if (!scene) return;
    const ctx = prepared(canvas, canvas.clientWidth, canvas.clientHeight);
    if (!ctx) return;
    const { x0, y0, wide, tall } = this.size();
    const { layers } = scene.record;
    ctx.font = `10px ${scene.ink.font}`;
    ctx.fillStyle = scene.ink.faint;
    ctx.textBaseline = "middle";
    const every = Math.min(wide, tall) < 14 ? 2 : 1;
    layers.forEach((layer, n) => {
      ctx.textAlign = "right";
      if (n % every === 0) ctx.fillText(String(layer.index), x0 - 6, y0 + (n + 0.5) * tall);
    });
    const widest = layers.reduce((a, b) => (b.heads.length > a.heads.length ? b : a));
    widest.heads.forEach((number, n) => {
      ctx.textAlign = "center";
      if (n % every === 0) ctx.fillText(String(number), x0 + (n + 0.5) * wide, y0 - 9);
    });
    const table = scene.record.scores[scene.colourBy];
    const values = (table ?? []).flat().filter((x): x is number => x !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const colours = shades(scene.look.palette);
    const gap = tall > 20 ? 1.5 : 1;
    layers.forEach((layer, n) =>
      layer.heads.forEach((_, m) => {
        const [x, y, w, h] = [x0 + m * wide + gap / 2, y0 + n * tall + gap / 2, wide - gap, tall - gap];
        ctx.beginPath();
        ctx.roundRect(x, y, w, h, Math.min(4, tall / 7));
        if (table) {
          const value = table[n]?.[m];
          const share = value === null || value === undefined || !(high > low) ? 0 : (value - low) / (high - low);
          const word = colours[Math.round((0.06 + 0.94 * share) * (colours.length - 1))];
          ctx.fillStyle = value === null || value === undefined ? "transparent" : css(word);
          ctx.fill();
          if (wide >= 26 && tall >= 14 && value !== null && value !== undefined && share > 0.5) {
            ctx.fillStyle = inkOn(word);
            ctx.textAlign = "center";
            ctx.font = `9px ${scene.ink.font}`;
            ctx.fillText(value >= 10 ? value.toFixed(0) : value.toPrecision(2).replace(/^0\./, "."), x + w / 2, y + h / 2 + 0.5);
          }
        } else {
          ctx.fillStyle = scene.ink.hidden;
          ctx.fill();
          const picture = this.picture({ record: scene.at, layer: n, head: m });
          if (picture) {
            ctx.save();
            ctx.clip();
            ctx.imageSmoothingEnabled = true;
            ctx.drawImage(picture, x, y, w, h);
            ctx.restore();
          }
        }
      }),
    );
    const frame = (ref: HeadRef | null, colour: string, width: number): void => {
      if (!ref || ref.record !== scene.at) return;
      ctx.strokeStyle = colour;
      ctx.lineWidth = width;
      ctx.beginPath();
      ctx.roundRect(x0 + ref.head * wide, y0 + ref.layer * tall, wide, tall, Math.min(5, tall / 6));
      ctx.stroke();
    };
    frame(this.hovered, scene.ink.text, 1.25);
    frame(scene.right, scene.ink.second, 2.25);
    frame(scene.left, scene.ink.accent, 2.25);
  }

  /** The small picture of a head; asked for when it is first drawn. */
  private picture(ref: HeadRef): HTMLCanvasElement | null {
    const key = keyOf(ref);
    const known = this.pictures.get(key);
    if (known !== undefined) return known;
    this.pictures.set(key, null);
    const scene = this.scene!;
    const look: Look = { ...scene.look, pooling: "max", scale: "log", contrast: 0.55 };
    const asked = this.look;
    this.source
      .thumbnail(ref, THUMB, () => this.scene!.colourBy === "" && this.look === asked)
      .then(
        (planes) => {
          if (this.look !== asked) return;
          this.pictures.set(key, paint(planes, look));
          requestAnimationFrame(() => this.draw());
        },
        () => {
          if (this.look === asked) this.pictures.delete(key);
        },
      );
    return null;
  }
}
