// The weights of one head, computed from q and k: the definition of regard, row by row.

export type Mod =
  | { kind: "cap"; cap: number }
  | { kind: "distance"; first: number; table: Float32Array }
  | { kind: "bias"; table: Float32Array; rows: number; cols: number };

export interface HeadNumbers {
  rows: number;
  cols: number;
  dim: number;
  /** Queries times the scale of the scores, rows x dim. */
  q: Float32Array;
  k: Float32Array;
  /** `each` pairs (start, stop) of columns a row; null: every column. */
  intervals: Int32Array | null;
  each: number;
  /** One bit a pair; null: none. */
  bits: Uint8Array | null;
  mods: Mod[];
  /** Absolute positions, where they are not the usual ones. */
  qPositions: Int32Array | null;
  kPositions: Int32Array | null;
  sink: number | null;
}

/** What normalises a row: the log of its sum of exponentials and the number of keys that it sees. */
export interface RowTotals {
  lse: Float64Array;
  seen: Int32Array;
}

/** Four maps of rows x cols bins. */
export interface Planes {
  rows: number;
  cols: number;
  /** Mean over the queries of a bin, sum over its keys. */
  mass: Float32Array;
  /** Largest weight. */
  max: Float32Array;
  /** Largest weight times the number of keys that its query sees. */
  lift: Float32Array;
  /** Mass if every query spread evenly over what it sees; 0 where nothing is visible. */
  uniform: Float32Array;
}

export function emptyPlanes(rows: number, cols: number): Planes {
  const make = () => new Float32Array(rows * cols);
  return { rows, cols, mass: make(), max: make(), lift: make(), uniform: make() };
}

export class Head {
  private readonly scratch: Float64Array;
  /** Outside these columns the last weighed row sees nothing. */
  private low = 0;
  private high = 0;
  private readonly totals = new Map<number, RowTotals>();

  constructor(readonly numbers: HeadNumbers) {
    this.scratch = new Float64Array(numbers.cols);
  }

  /** The totals of all rows with the first `hide` columns (and then the learned sink) left out; NaN: not yet known. */
  totalsFor(hide: number): RowTotals {
    let found = this.totals.get(hide);
    if (!found) {
      const rows = this.numbers.rows;
      found = { lse: new Float64Array(rows).fill(NaN), seen: new Int32Array(rows) };
      this.totals.set(hide, found);
    }
    return found;
  }

  setTotals(hide: number, totals: RowTotals): void {
    this.totals.set(hide, totals);
  }

  /** Final scores of row i and columns from .. to into `out[j]`; -Infinity where hidden. */
  private scores(i: number, from: number, to: number, out: Float64Array): void {
    const { intervals, each, bits, cols } = this.numbers;
    out.fill(-Infinity, from, to);
    if (intervals === null) {
      this.segment(i, from, to, out);
    } else {
      for (let n = 0; n < each; n++) {
        const at = (i * each + n) * 2;
        const start = Math.max(from, intervals[at]);
        const stop = Math.min(to, intervals[at + 1]);
        if (start < stop) this.segment(i, start, stop, out);
      }
    }
    if (bits !== null) {
      const row = i * ((cols + 7) >> 3);
      for (let j = from; j < to; j++) {
        if (!((bits[row + (j >> 3)] >> (j & 7)) & 1)) out[j] = -Infinity;
      }
    }
  }

  private segment(i: number, from: number, to: number, out: Float64Array): void {
    const { q, k, dim, mods } = this.numbers;
    const a = i * dim;
    let j = from;
    // Eight keys at a time, so that each number of the query is read once for them and no sum waits for another.
    for (; j + 7 < to; j += 8) {
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let s4 = 0;
      let s5 = 0;
      let s6 = 0;
      let s7 = 0;
      for (let d = 0, b = j * dim; d < dim; d++, b++) {
        const x = q[a + d];
        s0 += x * k[b];
        s1 += x * k[b + dim];
        s2 += x * k[b + 2 * dim];
        s3 += x * k[b + 3 * dim];
        s4 += x * k[b + 4 * dim];
        s5 += x * k[b + 5 * dim];
        s6 += x * k[b + 6 * dim];
        s7 += x * k[b + 7 * dim];
      }
      out[j] = s0;
      out[j + 1] = s1;
      out[j + 2] = s2;
      out[j + 3] = s3;
      out[j + 4] = s4;
      out[j + 5] = s5;
      out[j + 6] = s6;
      out[j + 7] = s7;
    }
    for (; j < to; j++) {
      let s = 0;
      for (let d = a, b = j * dim; d < a + dim; d++, b++) s += q[d] * k[b];
      out[j] = s;
    }
    for (const mod of mods) this.modify(mod, i, from, to, out);
  }

  private modify(mod: Mod, i: number, from: number, to: number, out: Float64Array): void {
    if (mod.kind === "cap") {
      for (let j = from; j < to; j++) out[j] = mod.cap * Math.tanh(out[j] / mod.cap);
    } else if (mod.kind === "bias") {
      const row = mod.rows > 1 ? i * mod.cols : 0;
      const step = mod.cols > 1 ? 1 : 0;
      for (let j = from; j < to; j++) out[j] += mod.table[row + j * step];
    } else {
      const { rows, cols, qPositions, kPositions } = this.numbers;
      const query = (qPositions ? qPositions[i] : cols - rows + i) + mod.first;
      for (let j = from; j < to; j++) out[j] += mod.table[(kPositions ? kPositions[j] : j) - query];
    }
  }

  /** The columns from .. to that row i may see, as `low` and `high`. */
  private bound(i: number, from: number, to: number): void {
    const { intervals, each } = this.numbers;
    [this.low, this.high] = [from, to];
    if (intervals === null) return;
    let [low, high] = [to, from];
    for (let n = 0; n < each; n++) {
      const at = (i * each + n) * 2;
      if (intervals[at] >= intervals[at + 1]) continue;
      low = Math.min(low, intervals[at]);
      high = Math.max(high, intervals[at + 1]);
    }
    this.low = Math.max(from, low);
    this.high = Math.max(this.low, Math.min(to, high));
  }

  /**
   * Weights of row i from column `low` to `high` in `scratch`, NaN where hidden, for the columns from .. to; its totals
   * too, where they were not known.
   */
  private weigh(i: number, from: number, to: number, hide: number, totals: RowTotals): void {
    const s = this.scratch;
    if (!Number.isNaN(totals.lse[i])) {
      const lse = totals.lse[i];
      this.bound(i, from, to);
      this.scores(i, this.low, this.high, s);
      for (let j = this.low; j < this.high; j++) s[j] = s[j] === -Infinity ? NaN : Math.exp(s[j] - lse);
      return;
    }
    const { cols, sink } = this.numbers;
    this.bound(i, Math.min(hide, cols), cols);
    const { low, high } = this;
    this.scores(i, low, high, s);
    const start = hide === 0 && sink !== null ? sink : -Infinity;
    let top = start;
    for (let j = low; j < high; j++) if (s[j] > top) top = s[j];
    let sum = start === -Infinity ? 0 : Math.exp(start - top);
    let seen = 0;
    for (let j = low; j < high; j++) {
      if (s[j] === -Infinity) s[j] = NaN;
      else {
        sum += s[j] = Math.exp(s[j] - top);
        seen++;
      }
    }
    totals.lse[i] = top > -Infinity ? top + Math.log(sum) : -Infinity;
    totals.seen[i] = seen;
    this.bound(i, from, to);
    const share = 1 / sum;
    for (let j = this.low; j < this.high; j++) s[j] *= share;
  }

  /** Weights of row i, columns from .. to, into `out` from `at` on; NaN where the pair is hidden. */
  row(i: number, from: number, to: number, hide: number, out: Float32Array | Float64Array, at: number): void {
    this.weigh(i, Math.max(from, Math.min(hide, to)), to, hide, this.totalsFor(hide));
    out.fill(NaN, at, at + to - from);
    for (let j = this.low; j < this.high; j++) out[at + j - from] = this.scratch[j];
  }

  /**
   * Maps of the rows r0 .. r1 and columns c0 .. c1 in bins of 2^zr rows and 2^zc columns, added to `planes`
   * whose first bin is that of (r0, c0).
   */
  pool(r0: number, r1: number, c0: number, c1: number, zr: number, zc: number, hide: number, planes: Planes): void {
    const { rows } = this.numbers;
    const totals = this.totalsFor(hide);
    const s = this.scratch;
    const first = Math.max(c0, Math.min(hide, c1));
    const { mass, max, lift, uniform, cols: width } = planes;
    for (let i = r0; i < r1; i++) {
      this.weigh(i, first, c1, hide, totals);
      const seen = totals.seen[i];
      if (seen === 0) continue;
      const start = (i >> zr) << zr;
      const share = 1 / (Math.min(start + (1 << zr), rows) - start);
      const even = share / seen;
      const line = ((i - r0) >> zr) * width;
      const { low, high } = this;
      for (let j = low; j < high; ) {
        const bin = (j - c0) >> zc;
        const stop = Math.min(high, c0 + ((bin + 1) << zc));
        let sum = 0;
        let top = 0;
        let visible = 0;
        for (; j < stop; j++) {
          const w = s[j];
          if (Number.isNaN(w)) continue;
          sum += w;
          visible++;
          if (w > top) top = w;
        }
        if (visible === 0) continue;
        const n = line + bin;
        mass[n] += sum * share;
        uniform[n] += visible * even;
        if (top > max[n]) max[n] = top;
        if (top * seen > lift[n]) lift[n] = top * seen;
      }
    }
  }
}

/** `planes` at 2^dr times fewer rows and 2^dc times fewer columns; its bins of 2^z rows cover `total` rows. */
export function coarser(planes: Planes, dr: number, dc: number, z: number, total: number): Planes {
  const rows = (planes.rows + (1 << dr) - 1) >> dr;
  const cols = (planes.cols + (1 << dc) - 1) >> dc;
  const out = emptyPlanes(rows, cols);
  for (let i = 0; i < planes.rows; i++) {
    const own = Math.min((i + 1) << z, total) - (i << z);
    const first = (i >> dr) << (dr + z);
    const all = Math.min(first + (1 << (dr + z)), total) - first;
    const share = own / all;
    for (let j = 0, from = i * planes.cols; j < planes.cols; j++, from++) {
      const to = (i >> dr) * cols + (j >> dc);
      out.mass[to] += planes.mass[from] * share;
      out.uniform[to] += planes.uniform[from] * share;
      if (planes.max[from] > out.max[to]) out.max[to] = planes.max[from];
      if (planes.lift[from] > out.lift[to]) out.lift[to] = planes.lift[from];
    }
  }
  return out;
}

/** The part of `planes` from bin (row, col) on, at most rows x cols. */
export function crop(planes: Planes, row: number, col: number, rows: number, cols: number): Planes {
  const height = Math.max(0, Math.min(rows, planes.rows - row));
  const width = Math.max(0, Math.min(cols, planes.cols - col));
  const out = emptyPlanes(height, width);
  for (const name of ["mass", "max", "lift", "uniform"] as const) {
    for (let i = 0; i < height; i++) {
      const from = (row + i) * planes.cols + col;
      out[name].set(planes[name].subarray(from, from + width), i * width);
    }
  }
  return out;
}
