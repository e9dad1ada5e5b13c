// The first sweep over a head's whole matrix: how far it is, and the small map that comes out of it.

import type { Planes } from "./head";
import type { HeadRef } from "./payload";
import { keyOf } from "./payload";
import { Stale } from "./queue";
import type { Source } from "./source";

const BINS = 160;
/** A sweep that takes less than this is not worth a progress bar. */
const SHORT = 200;

export interface OverviewEvents {
  /** 0 .. 1 while it takes time; null when there is nothing to wait for. */
  progress(done: number | null): void;
  ready(key: string): void;
  failed(why: string): void;
}

export class Overview {
  private key = "";
  private found: { key: string; planes: Planes } | null = null;

  constructor(
    private readonly source: Source,
    private readonly events: OverviewEvents,
  ) {}

  /** The small map of this head, once it is known. */
  get planes(): Planes | null {
    return this.found?.key === this.key ? this.found.planes : null;
  }

  want(ref: HeadRef, hide: number): void {
    const key = `${keyOf(ref)}/${hide}`;
    if (this.key === key) return;
    this.key = key;
    void this.sweep(ref, hide, key);
  }

  private async sweep(ref: HeadRef, hide: number, key: string): Promise<void> {
    const wanted = (): boolean => this.key === key;
    const began = performance.now();
    const progress = (done: number): void => {
      if (wanted()) this.events.progress(done >= 1 || performance.now() - began < SHORT ? null : done);
    };
    try {
      await this.source.overview(ref, hide, progress, wanted);
      if (!wanted()) return;
      this.found = { key, planes: await this.source.thumbnail(ref, BINS, wanted) };
      if (!wanted()) return;
      this.events.progress(null);
      this.events.ready(key);
    } catch (error) {
      if (!wanted()) return;
      this.events.progress(null);
      if (!(error instanceof Stale)) this.events.failed(error instanceof Error ? error.message : String(error));
    }
  }
}
