// The source of a page that Python answers for, over HTTP or through a frame's parent: tiles, a few at a time.

import { coarser, type Planes } from "./head";
import { keyOf, type HeadRef, type LayerData, type PageData } from "./payload";
import { Stale } from "./queue";
import { levelFor, TILE, type Place, type Source } from "./source";

/** As in src/regard/viewer/pyramid.py. */
const BASE_BINS = 4096;
const AT_ONCE = 3;
const POLL = 200;

interface Waiting {
  urgency: number;
  order: number;
  path: string;
  wanted: () => boolean;
  resolve: (response: Response) => void;
  reject: (error: Error) => void;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A way to ask Python. */
type Get = (path: string, signal: AbortSignal) => Promise<Response>;

export const overHttp =
  (base: string): Get =>
  (path, signal) =>
    fetch(`${base}/${path}`, { signal, cache: "no-store" });

export class Served implements Source {
  private queue: Waiting[] = [];
  private order = 0;
  private readonly flying = new Map<Waiting, AbortController>();
  private readonly complete = new Set<string>();
  private readonly running = new Map<string, Promise<void>>();

  constructor(
    private readonly data: PageData,
    private readonly get: Get,
  ) {}

  private layer(ref: HeadRef): LayerData {
    return this.data.records[ref.record].layers[ref.layer];
  }

  finest(): number {
    return 0;
  }

  private ask(urgency: number, path: string, wanted: () => boolean): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.queue.push({ urgency, order: this.order++, path, wanted, resolve, reject });
      this.pump();
    });
  }

  private pump(): void {
    // What has been sent and is no longer wanted is broken off, which Python notices before it computes.
    for (const [job, controller] of this.flying) if (!job.wanted()) controller.abort();
    for (const job of this.queue) if (!job.wanted()) job.reject(new Stale());
    this.queue = this.queue.filter((job) => job.wanted());
    this.queue.sort((a, b) => a.urgency - b.urgency || b.order - a.order);
    while (this.flying.size < AT_ONCE && this.queue.length) void this.fly(this.queue.shift()!);
  }

  private async fly(job: Waiting): Promise<void> {
    const controller = new AbortController();
    this.flying.set(job, controller);
    try {
      const response = await this.get(job.path, controller.signal);
      if (!response.ok) throw new Error(await response.text());
      job.resolve(response);
    } catch (error) {
      job.reject(controller.signal.aborted ? new Stale() : error instanceof Error ? error : new Error(String(error)));
    } finally {
      this.flying.delete(job);
      this.pump();
    }
  }

  private static address(ref: HeadRef, hide: number): string {
    return `record=${ref.record}&layer=${ref.layer}&head=${ref.head}&hide=${hide}`;
  }

  async overview(ref: HeadRef, hide: number, progress: (done: number) => void, wanted: () => boolean): Promise<void> {
    const name = `${keyOf(ref)}/${hide}`;
    if (this.complete.has(name)) return;
    const already = this.running.get(name);
    if (already) return already;
    const job = (async (): Promise<void> => {
      for (;;) {
        const response = await this.ask(0, `overview?${Served.address(ref, hide)}`, wanted);
        const { done } = (await response.json()) as { done: number };
        progress(done);
        if (done >= 1) break;
        await pause(POLL);
      }
      this.complete.add(name);
    })().finally(() => this.running.delete(name));
    this.running.set(name, job);
    return job;
  }

  async tile(ref: HeadRef, place: Place, hide: number, wanted: () => boolean): Promise<Planes> {
    const { rows, cols } = this.layer(ref);
    const { zr, zc, row, col } = place;
    if (zr >= levelFor(rows, BASE_BINS) && zc >= levelFor(cols, BASE_BINS)) await this.overview(ref, hide, () => {}, wanted);
    const path = `tile?${Served.address(ref, hide)}&zr=${zr}&zc=${zc}&row=${row}&col=${col}`;
    const response = await this.ask(1, path, wanted);
    const [, n, m] = response.headers.get("X-Shape")!.split(",").map(Number);
    const numbers = new Float32Array(await response.arrayBuffer());
    const plane = (at: number): Float32Array => numbers.subarray(at * n * m, (at + 1) * n * m);
    return { rows: n, cols: m, mass: plane(0), max: plane(1), lift: plane(2), uniform: plane(3) };
  }

  async part(ref: HeadRef, r0: number, r1: number, c0: number, c1: number, hide: number): Promise<Float32Array> {
    const path = `part?${Served.address(ref, hide)}&r0=${r0}&r1=${r1}&c0=${c0}&c1=${c1}`;
    const response = await this.ask(0, path, () => true);
    return new Float32Array(await response.arrayBuffer());
  }

  async thumbnail(ref: HeadRef, bins: number, wanted: () => boolean): Promise<Planes> {
    const { rows, cols } = this.layer(ref);
    const [zr, zc] = [levelFor(rows, TILE), levelFor(cols, TILE)];
    const least = { zr: Math.max(zr, levelFor(rows, BASE_BINS)), zc: Math.max(zc, levelFor(cols, BASE_BINS)) };
    const tile = await this.tile(ref, { ...least, row: 0, col: 0 }, 0, wanted);
    return coarser(tile, Math.max(0, levelFor(rows, bins) - least.zr), Math.max(0, levelFor(cols, bins) - least.zc), least.zr, rows);
  }
}
