// A worker that holds heads and answers for their weights; also runs on the page's own thread where workers may not.

import { floats, integers, rawBytes, type Packed } from "./decode";
import { emptyPlanes, Head, type HeadNumbers, type Mod, type Planes } from "./head";

export interface HeadMessage {
  rows: number;
  cols: number;
  dim: number;
  scale: number;
  q: Packed & { scale: number };
  k: Packed & { scale: number };
  intervals: Packed | null;
  each: number;
  bits: Packed | null;
  mods: (
    | { kind: "cap"; cap: number }
    | { kind: "distance"; first: number; table: Packed; q: Packed | null; k: Packed | null }
    | { kind: "bias"; table: Packed; rows: number; cols: number }
  )[];
  sink: number | null;
}

export type Request =
  | { id: number; kind: "head"; key: string; head: HeadMessage }
  | { id: number; kind: "drop"; key: string }
  | { id: number; kind: "totals"; key: string; hide: number; lse: Float64Array; seen: Int32Array }
  | { id: number; kind: "rows"; key: string; hide: number; r0: number; r1: number; c0: number; c1: number }
  | {
      id: number;
      kind: "pool";
      key: string;
      hide: number;
      r0: number;
      r1: number;
      c0: number;
      c1: number;
      zr: number;
      zc: number;
    };

export type Answer =
  | { id: number; error: string }
  | { id: number; values?: Float32Array; planes?: Planes; lse?: Float64Array; seen?: Int32Array };

async function decoded(message: HeadMessage): Promise<HeadNumbers> {
  const mods: Mod[] = [];
  let qPositions: Int32Array | null = null;
  let kPositions: Int32Array | null = null;
  for (const mod of message.mods) {
    if (mod.kind === "cap") mods.push(mod);
    else if (mod.kind === "bias") mods.push({ ...mod, table: await floats(mod.table) });
    else {
      mods.push({ kind: "distance", first: mod.first, table: await floats(mod.table) });
      if (mod.q) qPositions = await integers(mod.q);
      if (mod.k) kPositions = await integers(mod.k);
    }
  }
  const { rows, cols, dim, each, sink } = message;
  return {
    rows,
    cols,
    dim,
    q: await floats(message.q, message.q.scale * message.scale),
    k: await floats(message.k, message.k.scale),
    intervals: message.intervals && (await integers(message.intervals)),
    each,
    bits: message.bits && (await rawBytes(message.bits)),
    mods,
    qPositions,
    kPositions,
    sink,
  };
}

/** Answers requests about the heads that it was given. */
export class Engine {
  private readonly heads = new Map<string, Promise<Head>>();

  async answer(request: Request): Promise<Answer> {
    const { id } = request;
    if (request.kind === "head") {
      this.heads.set(
        request.key,
        decoded(request.head).then((numbers) => new Head(numbers)),
      );
      await this.heads.get(request.key);
      return { id };
    }
    if (request.kind === "drop") {
      this.heads.delete(request.key);
      return { id };
    }
    const head = await this.heads.get(request.key);
    if (!head) throw new Error(`no head ${request.key}`);
    const { hide } = request;
    if (request.kind === "totals") {
      head.setTotals(hide, { lse: request.lse, seen: request.seen });
      return { id };
    }
    const { r0, r1, c0, c1 } = request;
    if (request.kind === "rows") {
      const values = new Float32Array((r1 - r0) * (c1 - c0));
      for (let i = r0; i < r1; i++) head.row(i, c0, c1, hide, values, (i - r0) * (c1 - c0));
      return { id, values };
    }
    const { zr, zc } = request;
    const planes = emptyPlanes(((r1 - 1) >> zr) - (r0 >> zr) + 1, ((c1 - 1) >> zc) - (c0 >> zc) + 1);
    head.pool(r0, r1, c0, c1, zr, zc, hide, planes);
    const totals = head.totalsFor(hide);
    return { id, planes, lse: totals.lse.slice(r0, r1), seen: totals.seen.slice(r0, r1) };
  }
}

const scope = globalThis as unknown as {
  document?: unknown;
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(message: Answer, transfer: Transferable[]): void;
};

export function buffersOf(answer: Answer): Transferable[] {
  if ("error" in answer) return [];
  const planes = answer.planes ? [answer.planes.mass, answer.planes.max, answer.planes.lift, answer.planes.uniform] : [];
  return [answer.values, answer.lse, answer.seen, ...planes].flatMap((x) => (x ? [x.buffer as ArrayBuffer] : []));
}

if (typeof scope.document === "undefined") {
  const engine = new Engine();
  let last: Promise<unknown> = Promise.resolve();
  scope.onmessage = (event) => {
    const request = event.data;
    last = last.then(async () => {
      try {
        const answer = await engine.answer(request);
        scope.postMessage(answer, buffersOf(answer));
      } catch (error) {
        scope.postMessage({ id: request.id, error: error instanceof Error ? error.message : String(error) }, []);
      }
    });
  };
}
