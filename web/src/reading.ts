// The tokens below the map: text coloured by weight, and lines from queries to keys.

import { css, inkOn, shades, type Look } from "./colour";
import { h } from "./dom";
import { count, number, t } from "./i18n";
import type { HeadRef, LayerData, RecordData } from "./payload";
import type { Source } from "./source";
import type { Focus, View } from "./state";
import { keyToken, label, queryToken, quoted, running } from "./tokens";

/** At most as many tokens are text at a time: the ones around the heaviest, or around the chosen one. */
const SHOWN = 1200;
const MOST_ROWS = 64;
const LINE_ROWS = 48;

export interface ReadingScene {
  ref: HeadRef;
  record: RecordData;
  layer: LayerData;
  hide: number;
  look: Look;
  focus: Focus | null;
  topP: number;
  view: View;
  ink: { text: string; faint: string; accent: string; font: string; panel: string };
}

/** The fewest indices whose values hold `share` of the whole, largest first. */
export function heaviest(values: Float32Array, share: number): number[] {
  const order = Array.from(values.keys()).filter((n) => values[n] > 0);
  order.sort((a, b) => values[b] - values[a]);
  let total = 0;
  for (const n of order) total += values[n];
  let sum = 0;
  const kept: number[] = [];
  for (const n of order) {
    if (share < 1 && sum >= share * total) break;
    kept.push(n);
    sum += values[n];
  }
  return kept;
}

/** Weights of the focus along the other axis, averaged over a range of queries. */
async function weightsOf(source: Source, scene: ReadingScene): Promise<Float32Array> {
  const { ref, layer, hide, focus } = scene;
  if (focus!.axis === "key") return source.part(ref, 0, layer.rows, focus!.at, focus!.at + 1, hide);
  const { from, to } = focus!;
  const step = Math.ceil((to + 1 - from) / MOST_ROWS);
  const mean = new Float32Array(layer.cols).fill(NaN);
  let rows = 0;
  for (let i = from; i <= to; i += step, rows++) {
    const one = await source.part(ref, i, i + 1, 0, layer.cols, hide);
    for (let j = 0; j < mean.length; j++) if (!Number.isNaN(one[j])) mean[j] = (mean[j] || 0) + one[j];
  }
  for (let j = 0; j < mean.length; j++) mean[j] /= rows;
  return mean;
}

export class Reading {
  readonly text = h("div", { class: "text", role: "region", tabindex: 0 });
  readonly lines = h("canvas", { class: "lines", role: "img" });
  readonly table = h("table", { class: "unseen" });
  readonly caption = h("div", { class: "caption" });
  private asked = 0;
  private drawn = "";

  constructor(
    private readonly source: Source,
    private readonly choose: (focus: Focus) => void,
    private readonly failed: (why: string) => void,
  ) {}

  show(scene: ReadingScene, panel: "text" | "lines"): void {
    this.text.hidden = panel !== "text";
    this.lines.hidden = panel !== "lines";
    this.text.setAttribute("aria-label", t("textLabel"));
    this.lines.setAttribute("aria-label", t("linesLabel"));
    if (panel === "text") this.showText(scene);
    else this.showLines(scene);
  }

  private showText(scene: ReadingScene): void {
    const { ref, hide, look, focus, topP } = scene;
    const key = JSON.stringify([ref, hide, look, focus, topP, "text", t("sum")]);
    if (key === this.drawn) return;
    this.drawn = key;
    const asked = ++this.asked;
    if (!focus) {
      this.caption.textContent = t("none");
      this.fill(scene, null);
      return;
    }
    weightsOf(this.source, scene).then(
      (values) => asked === this.asked && this.fill(scene, values),
      (error: unknown) => this.failed(error instanceof Error ? error.message : String(error)),
    );
  }

  private name(scene: ReadingScene, axis: "query" | "key", n: number): string {
    const token = axis === "query" ? queryToken(scene.record, scene.layer, n) : keyToken(scene.record, n);
    return token === null ? "" : `“${quoted(token)}”`;
  }

  private fill(scene: ReadingScene, values: Float32Array | null): void {
    const { layer, focus, look, topP, record } = scene;
    const along = focus?.axis === "key" ? "query" : "key";
    const all = along === "key" ? layer.cols : layer.rows;
    const kept = values ? heaviest(values, topP) : [];
    const top = kept.length ? values![kept[0]] : 0;
    const held = new Set(kept);
    const centre = focus ? (focus.axis === "query" ? focus.to + layer.ahead : focus.at - layer.ahead) : 0;
    const first = Math.max(0, Math.min(all - SHOWN, Math.round(centre - SHOWN * 0.8)));
    const colours = shades(look.palette);
    const spans: Node[] = [];
    const far = kept.filter((n) => n < first || n >= first + SHOWN).slice(0, 12);
    const one = (n: number): HTMLElement => {
      const token = along === "key" ? keyToken(record, n) : queryToken(record, layer, n);
      const span = h("span", { "data-n": n }, token === null ? `${n} ` : running(token));
      span.dir = "auto";
      const w = values?.[n];
      if (w !== undefined && held.has(n) && top > 0) {
        const word = colours[Math.round((0.1 + 0.9 * Math.sqrt(w / top)) * (colours.length - 1))];
        span.style.backgroundColor = css(word);
        span.style.color = inkOn(word);
      } else if (w !== undefined && Number.isNaN(w)) span.className = "out";
      if (w !== undefined) span.title = `${n}: ${Number.isNaN(w) ? t("hidden") : number(w)}`;
      if (focus?.axis === "query" && n - layer.ahead >= focus.from && n - layer.ahead <= focus.to) span.classList.add("self");
      if (focus?.axis === "key" && n + layer.ahead === focus.at) span.classList.add("self");
      return span;
    };
    if (far.length) {
      const notes = far.map((n) => h("span", { class: "far" }, h("small", {}, `${count(n)} `), one(n)));
      spans.push(h("p", {}, ...notes));
    }
    const body = h("p", {}, first > 0 ? "… " : null);
    for (let n = first; n < Math.min(all, first + SHOWN); n++) {
      body.append(one(n));
      const token = along === "key" ? keyToken(record, n) : queryToken(record, layer, n);
      if (token !== null && /\n\s*\n|\n$/.test(token.slice(0, 100))) body.append(h("br"));
    }
    if (first + SHOWN < all) body.append(" …");
    spans.push(body);
    this.text.replaceChildren(...spans);
    this.text.onclick = (event) => {
      const n = (event.target as HTMLElement).closest<HTMLElement>("[data-n]")?.dataset.n;
      if (n === undefined) return;
      const row = along === "key" ? Number(n) - layer.ahead : Number(n);
      if (event.shiftKey) this.choose({ axis: "key", at: along === "key" ? Number(n) : Math.max(0, row + layer.ahead) });
      else if (focus?.axis === "key") this.choose({ axis: "key", at: Math.max(0, Math.min(layer.cols - 1, row + layer.ahead)) });
      else if (row >= 0 && row < layer.rows) this.choose({ axis: "query", from: row, to: row });
    };
    if (!focus) {
      this.table.replaceChildren();
      return;
    }
    let sum = 0;
    for (const n of kept) sum += values![n];
    const heading =
      focus.axis === "key"
        ? t("ofKey", { j: count(focus.at), token: this.name(scene, "key", focus.at) })
        : focus.from === focus.to
          ? t("ofQuery", { i: count(focus.from), token: this.name(scene, "query", focus.from) })
          : t("ofQueries", { a: count(focus.from), b: count(focus.to) });
    this.caption.textContent = `${heading} — ${t("sum", { x: number(sum) })}`;
    this.tabulate(scene, along, kept.slice(0, 20), values!);
    this.text.querySelector(".self")?.scrollIntoView({ block: "nearest" });
  }

  /** The largest weights as a table, for those who do not see the colours. */
  private tabulate(scene: ReadingScene, along: "query" | "key", kept: number[], values: Float32Array): void {
    const rows = kept.map((n) =>
      h("tr", {}, h("td", {}, String(n)), h("td", {}, this.name(scene, along, n)), h("td", {}, number(values[n]))),
    );
    this.table.replaceChildren(
      h("caption", {}, this.caption.textContent ?? ""),
      h("thead", {}, h("tr", {}, h("th", {}, along === "key" ? t("key") : t("query")), h("th", {}, t("text")), h("th", {}, t("weight")))),
      h("tbody", {}, ...rows),
    );
  }

  /** Queries on the left, keys on the right, a line a weight, for the part of the map in view. */
  private showLines(scene: ReadingScene): void {
    const { ref, hide, look, topP, view, layer, focus } = scene;
    const middle = (a: number, b: number, n: number): [number, number] => {
      const from = Math.max(0, Math.floor(a));
      const to = Math.min(n, Math.ceil(b));
      return to - from <= LINE_ROWS ? [from, to] : [from, from + LINE_ROWS];
    };
    const focused = focus?.axis === "query" ? Math.max(0, focus.from - LINE_ROWS + 8) : null;
    const wide = view.y1 - view.y0 > LINE_ROWS && focused !== null;
    const [r0, r1] = wide ? [focused, Math.min(layer.rows, focused + LINE_ROWS)] : middle(view.y0, view.y1, layer.rows);
    const first = Math.max(0, Math.min(r0 + layer.ahead, layer.cols - LINE_ROWS));
    const [k0, k1] = [first, Math.min(layer.cols, first + Math.max(LINE_ROWS, 1))];
    const box = this.lines.parentElement!;
    const key = JSON.stringify([ref, hide, look, topP, r0, r1, k0, focus, box.clientWidth, t("sum")]);
    if (key === this.drawn) return;
    this.drawn = key;
    const asked = ++this.asked;
    this.table.replaceChildren();
    this.caption.textContent = `${t("queries")} ${count(r0)}–${count(r1 - 1)} → ${t("keys")} ${count(k0)}–${count(k1 - 1)}`;
    this.source.part(ref, r0, r1, 0, layer.cols, hide).then(
      (values) => asked === this.asked && this.drawLines(scene, values, r0, r1, k0, k1),
      (error: unknown) => this.failed(error instanceof Error ? error.message : String(error)),
    );
  }

  private drawLines(scene: ReadingScene, values: Float32Array, r0: number, r1: number, k0: number, k1: number): void {
    const { layer, record, topP, ink, look, focus } = scene;
    const canvas = this.lines;
    const line = 18;
    const wide = Math.min(760, canvas.parentElement!.clientWidth - 24);
    const tall = Math.max(r1 - r0, k1 - k0) * line + 16;
    const dense = window.devicePixelRatio || 1;
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${tall}px`;
    canvas.width = Math.round(wide * dense);
    canvas.height = Math.round(tall * dense);
    const ctx = canvas.getContext("2d")!;
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    ctx.clearRect(0, 0, wide, tall);
    const [a, b] = [wide * 0.32, wide * 0.68];
    const y = (n: number): number => 16 + n * line;
    const colours = shades(look.palette);
    ctx.lineCap = "round";
    for (let i = r0; i < r1; i++) {
      const row = values.subarray((i - r0) * layer.cols, (i - r0 + 1) * layer.cols);
      const chosen = focus?.axis === "query" && focus.from <= i && i <= focus.to;
      if (focus?.axis === "query" && !chosen) continue;
      for (const j of heaviest(row, topP).slice(0, 64)) {
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
    ctx.textAlign = "right";
    for (let i = r0; i < r1; i++) {
      const token = queryToken(record, layer, i);
      ctx.fillStyle = focus?.axis === "query" && focus.from <= i && i <= focus.to ? ink.accent : ink.text;
      ctx.fillText(token === null ? String(i) : label(token), a, y(i - r0));
    }
    ctx.textAlign = "left";
    ctx.fillStyle = ink.text;
    for (let j = k0; j < k1; j++) {
      const token = keyToken(record, j);
      ctx.fillText(token === null ? String(j) : label(token), b, y(j - k0));
    }
    if (focus?.axis === "query") canvas.parentElement!.scrollTop = y(focus.from - r0) - 60;
    canvas.onclick = (event) => {
      const i = r0 + Math.round((event.offsetY - 16) / line);
      if (event.offsetX < wide / 2 && i >= r0 && i < r1) this.choose({ axis: "query", from: i, to: i });
    };
  }
}
