// The source of a page that holds its numbers: q and k, or baked maps.

import { coarser, crop, emptyPlanes, type Planes } from "./head";
import { floats, type Packed } from "./decode";
import type { Chunk, HeadRef, LayerData, PageData } from "./payload";
import { keyOf } from "./payload";
import { Stale, Workers } from "./queue";
import { levelFor, TILE, type Place, type Source } from "./source";
import type { HeadMessage } from "./worker";

const BASE_BINS = 1024;
const KEPT_BASES = 10;
const JOB_PRODUCTS = 2e7;

interface Base {
  zr: number;
  zc: number;
  planes: Planes;
  levels: Map<string, Planes>;
}

/** Chunks by name; they may still be on their way while the page is read. */
class Shelf {
  private found = new Map<string, string>();

  private async text(id: string): Promise<string> {
    const known = this.found.get(id);
    if (known !== undefined) return known;
    for (;;) {
      const element = document.querySelector(`script[data-chunk="${id}"]`);
      // An element is complete once something follows it or the page has been read.
      if (element && (element.nextElementSibling || document.readyState !== "loading")) {
        const text = element.textContent ?? "";
        this.found.set(id, text);
        return text;
      }
      if (document.readyState !== "loading") throw new Error(`the page lacks its part ${id}: was it saved whole?`);
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
  }

  async packed<C extends Chunk>(chunk: C): Promise<C & Packed> {
    return { ...chunk, text: await this.text(chunk.id) };
  }
}

export class Embedded implements Source {
  private readonly shelf = new Shelf();
  private readonly workers = new Workers((key) => this.message(key));
  private readonly bases = new Map<string, Base>();
  private readonly running = new Map<string, Promise<void>>();

  constructor(private readonly data: PageData) {}

  private layer(ref: HeadRef): LayerData {
    return this.data.records[ref.record].layers[ref.layer];
  }

  finest(ref: HeadRef): number {
    return this.layer(ref).baked?.level ?? 0;
  }

  private async message(key: string): Promise<HeadMessage> {
    const [record, layer, head] = key.split(".").map(Number);
    const data = this.layer({ record, layer, head });
    if (!data.q || !data.k || !data.mask) throw new Error("this layer holds maps only");
    const pick = <T>(list: T[]): T => list[list.length > 1 ? head : 0];
    const group = data.q.length / data.k.length;
    const mods: HeadMessage["mods"] = [];
    for (const mod of data.mods ?? []) {
      if (mod.kind === "cap") mods.push(mod);
      else if (mod.kind === "bias") {
        mods.push({ kind: "bias", table: await this.shelf.packed(pick(mod.data)), rows: mod.rows, cols: mod.cols });
      } else {
        const q = mod.q ? await this.shelf.packed(mod.q) : null;
        const k = mod.k ? await this.shelf.packed(mod.k) : null;
        mods.push({ kind: "distance", first: mod.first, table: await this.shelf.packed(pick(mod.data)), q, k });
      }
    }
    return {
      rows: data.rows,
      cols: data.cols,
      dim: data.dim!,
      scale: data.scale!,
      q: await this.shelf.packed(data.q[head]),
      k: await this.shelf.packed(data.k[Math.floor(head / group)]),
      intervals: data.mask.kind === "rows" ? await this.shelf.packed(data.mask.data) : null,
      each: data.mask.kind === "rows" ? data.mask.each : 0,
      bits: data.mask.kind === "bits" ? await this.shelf.packed(pick(data.mask.data)) : null,
      mods,
      sink: data.sinks ? data.sinks[head] : null,
    };
  }

  async overview(
    ref: HeadRef,
    hide: number,
    progress: (done: number) => void,
    wanted: () => boolean,
  ): Promise<void> {
    const name = `${keyOf(ref)}/${hide}`;
    if (this.bases.has(name)) return;
    const already = this.running.get(name);
    if (already) return already;
    const job = (this.layer(ref).baked ? this.bakedBase(ref, name, hide) : this.sweep(ref, hide, progress, wanted)).finally(
      () => this.running.delete(name),
    );
    this.running.set(name, job);
    return job;
  }

  private keep(name: string, base: Base): void {
    this.bases.set(name, base);
    if (this.bases.size > KEPT_BASES) this.bases.delete(this.bases.keys().next().value!);
  }

  /** Every row once, in stripes that the workers share. */
  private async sweep(
    ref: HeadRef,
    hide: number,
    progress: (done: number) => void,
    wanted: () => boolean,
  ): Promise<void> {
    const { rows, cols, dim } = this.layer(ref);
    const zr = levelFor(rows, BASE_BINS);
    const zc = levelFor(cols, BASE_BINS);
    const planes = emptyPlanes(Math.ceil(rows / 2 ** zr), Math.ceil(cols / 2 ** zc));
    const lse = new Float64Array(rows);
    const seen = new Int32Array(rows);
    const bins = Math.max(1, Math.round(JOB_PRODUCTS / (cols * (dim! + 8)) / 2 ** zr));
    let done = 0;
    const stripes: Promise<void>[] = [];
    // From the bottom, where causal rows are longest: short jobs at the end keep all workers busy. The newest
    // request is served first, so they are queued the other way round.
    for (let bin = 0; bin < planes.rows; bin += bins) {
      const r0 = bin << zr;
      const r1 = Math.min((bin + bins) << zr, rows);
      const body = { kind: "pool" as const, key: keyOf(ref), hide, r0, r1, c0: 0, c1: cols, zr, zc };
      stripes.push(
        this.workers.run(2, body, wanted).then((answer) => {
          for (const plane of ["mass", "max", "lift", "uniform"] as const) {
            planes[plane].set(answer.planes![plane], bin * planes.cols);
          }
          lse.set(answer.lse!, r0);
          seen.set(answer.seen!, r0);
          done += r1 - r0;
          progress(done / rows);
        }),
      );
    }
    const results = await Promise.allSettled(stripes);
    const failed = results.find((r) => r.status === "rejected");
    if (failed) throw (failed as PromiseRejectedResult).reason;
    this.workers.learn(keyOf(ref), hide, { lse, seen });
    this.keep(`${keyOf(ref)}/${hide}`, { zr, zc, planes, levels: new Map() });
  }

  private async bakedBase(ref: HeadRef, name: string, hide: number): Promise<void> {
    const { baked, rows, cols } = this.layer(ref);
    const z = baked!.level;
    const planes = emptyPlanes(Math.ceil(rows / 2 ** z), Math.ceil(cols / 2 ** z));
    const [mass, max] = await Promise.all(baked!.planes[ref.head].map(async (c) => floats(await this.shelf.packed(c))));
    for (let i = 0; i < planes.rows; i++) {
      const line = i * planes.cols;
      let seen = 0;
      for (let j = 0; j < planes.cols; j++) if (max[line + j] > -60000) seen++;
      const gone = Math.ceil(hide / 2 ** z);
      let left = 1;
      for (let j = 0; j < Math.min(gone, planes.cols); j++) left -= 2 ** mass[line + j];
      for (let j = gone; j < planes.cols; j++) {
        if (max[line + j] <= -60000) continue;
        const scale = hide ? 1 / Math.max(left, 1e-9) : 1;
        planes.mass[line + j] = 2 ** mass[line + j] * scale;
        planes.max[line + j] = 2 ** max[line + j] * scale;
        planes.lift[line + j] = planes.max[line + j] * (seen << z);
        planes.uniform[line + j] = 1 / seen;
      }
    }
    this.keep(name, { zr: z, zc: z, planes, levels: new Map() });
  }

  async tile(ref: HeadRef, place: Place, hide: number, wanted: () => boolean): Promise<Planes> {
    const { rows, cols, baked } = this.layer(ref);
    const { zr, zc } = place;
    const zBase = baked ? { zr: baked.level, zc: baked.level } : { zr: levelFor(rows, BASE_BINS), zc: levelFor(cols, BASE_BINS) };
    if (baked || (zr >= zBase.zr && zc >= zBase.zc)) {
      await this.overview(ref, hide, () => {}, wanted);
      const base = this.bases.get(`${keyOf(ref)}/${hide}`);
      if (!base) throw new Stale();
      const name = `${zr}.${zc}`;
      let level = base.levels.get(name);
      if (!level) {
        level = coarser(base.planes, zr - base.zr, zc - base.zc, base.zr, rows);
        base.levels.set(name, level);
      }
      return crop(level, place.row * TILE, place.col * TILE, TILE, TILE);
    }
    const r0 = (place.row * TILE) << zr;
    const c0 = (place.col * TILE) << zc;
    const r1 = Math.min(rows, r0 + (TILE << zr));
    const c1 = Math.min(cols, c0 + (TILE << zc));
    const body = { kind: "pool" as const, key: keyOf(ref), hide, r0, r1, c0, c1, zr, zc };
    return (await this.workers.run(1, body, wanted)).planes!;
  }

  async part(ref: HeadRef, r0: number, r1: number, c0: number, c1: number, hide: number): Promise<Float32Array> {
    const { baked } = this.layer(ref);
    if (!baked) {
      return (await this.workers.run(0, { kind: "rows", key: keyOf(ref), hide, r0, r1, c0, c1 })).values!;
    }
    await this.overview(ref, hide, () => {}, () => true);
    const { planes } = this.bases.get(`${keyOf(ref)}/${hide}`)!;
    const out = new Float32Array((r1 - r0) * (c1 - c0));
    for (let i = r0, n = 0; i < r1; i++) {
      for (let j = c0; j < c1; j++, n++) {
        const at = (i >> baked.level) * planes.cols + (j >> baked.level);
        out[n] = planes.uniform[at] > 0 ? planes.mass[at] / (1 << baked.level) : NaN;
      }
    }
    return out;
  }

  async thumbnail(ref: HeadRef, bins: number, wanted: () => boolean): Promise<Planes> {
    const { rows, cols, baked } = this.layer(ref);
    const zr = levelFor(rows, bins);
    const zc = levelFor(cols, bins);
    if (baked) return this.tile(ref, { zr: Math.max(zr, baked.level), zc: Math.max(zc, baked.level), row: 0, col: 0 }, 0, wanted);
    const known = this.bases.get(`${keyOf(ref)}/0`);
    if (known) return coarser(known.planes, zr - known.zr, zc - known.zc, known.zr, rows);
    const body = { kind: "pool" as const, key: keyOf(ref), hide: 0, r0: 0, r1: rows, c0: 0, c1: cols, zr, zc };
    return (await this.workers.run(3, body, wanted)).planes!;
  }
}
