// A bounded set of workers, a queue by urgency, and requests that are dropped once nobody wants them.

import { Engine, type Answer, type HeadMessage, type Request } from "./worker";
import workerSource from "worker:worker.ts";

export class Stale extends Error {}

type Body = { [K in Request["kind"]]: Omit<Extract<Request, { kind: K }>, "id"> }[Request["kind"]];
type Done = Exclude<Answer, { error: string }>;

interface Job {
  urgency: number;
  order: number;
  body: Extract<Body, { kind: "rows" | "pool" }>;
  wanted: () => boolean;
  resolve: (answer: Done) => void;
  reject: (error: Error) => void;
}

export interface Totals {
  lse: Float64Array;
  seen: Int32Array;
}

/** One worker and what it has been given. */
class Hand {
  busy = false;
  readonly heads: string[] = [];
  readonly totals = new Set<string>();
  private readonly waiting = new Map<number, { resolve: (a: Done) => void; reject: (e: Error) => void }>();
  private next = 1;

  constructor(private readonly send: (request: Request) => void) {}

  ask(body: Body): Promise<Done> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send({ ...body, id } as Request);
    });
  }

  receive(answer: Answer): void {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if ("error" in answer) waiting?.reject(new Error(answer.error));
    else waiting?.resolve(answer);
  }
}

const KEPT_HEADS = 6;

export class Workers {
  private readonly hands: Hand[] = [];
  private queue: Job[] = [];
  private order = 0;
  private readonly known = new Map<string, Totals>();

  constructor(private readonly describe: (key: string) => Promise<HeadMessage>) {
    const count = Math.max(1, Math.min(4, navigator.hardwareConcurrency || 2));
    for (let n = 0; n < count; n++) this.hands.push(this.hire());
  }

  /** Remember the totals of all rows, so that no worker computes them again. */
  learn(key: string, hide: number, totals: Totals): void {
    this.known.set(`${key}/${hide}`, totals);
  }

  /** Low urgency is served first; among equals the newest, and the oldest among those of no urgency (3). */
  run(urgency: number, body: Job["body"], wanted: () => boolean = () => true): Promise<Done> {
    return new Promise((resolve, reject) => {
      this.queue.push({ urgency, order: this.order++, body, wanted, resolve, reject });
      this.pump();
    });
  }

  get width(): number {
    return this.hands.length;
  }

  private hire(): Hand {
    try {
      const url = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
      const worker = new Worker(url);
      const hand = new Hand((request) => worker.postMessage(request));
      worker.onmessage = (event: MessageEvent<Answer>) => hand.receive(event.data);
      return hand;
    } catch {
      // Workers are forbidden here: the same engine runs between two frames.
      const engine = new Engine();
      const hand: Hand = new Hand((request) => {
        setTimeout(() => {
          engine.answer(request).then(
            (answer) => hand.receive(answer),
            (error: unknown) => hand.receive({ id: request.id, error: String(error) }),
          );
        });
      });
      return hand;
    }
  }

  private take(): Job | undefined {
    const stale = this.queue.filter((job) => !job.wanted());
    if (stale.length) {
      this.queue = this.queue.filter((job) => !stale.includes(job));
      for (const job of stale) job.reject(new Stale());
    }
    let best = -1;
    for (let n = 0; n < this.queue.length; n++) {
      const [a, b] = [this.queue[n], this.queue[best]];
      const sooner = a.urgency < 3 ? a.order > b?.order : a.order < b?.order;
      if (best < 0 || a.urgency < b.urgency || (a.urgency === b.urgency && sooner)) best = n;
    }
    return best < 0 ? undefined : this.queue.splice(best, 1)[0];
  }

  private pump(): void {
    for (const hand of this.hands) {
      if (hand.busy) continue;
      const job = this.take();
      if (!job) return;
      hand.busy = true;
      this.serve(hand, job)
        .then(job.resolve, job.reject)
        .finally(() => {
          hand.busy = false;
          this.pump();
        });
    }
  }

  private async serve(hand: Hand, job: Job): Promise<Done> {
    const { key, hide } = job.body;
    if (!hand.heads.includes(key)) {
      await hand.ask({ kind: "head", key, head: await this.describe(key) });
      hand.heads.push(key);
      if (hand.heads.length > KEPT_HEADS) {
        const gone = hand.heads.shift()!;
        for (const name of [...hand.totals]) if (name.startsWith(`${gone}/`)) hand.totals.delete(name);
        await hand.ask({ kind: "drop", key: gone });
      }
    }
    const name = `${key}/${hide}`;
    const totals = this.known.get(name);
    if (totals && !hand.totals.has(name)) {
      hand.totals.add(name);
      await hand.ask({ kind: "totals", key, hide, lse: totals.lse, seen: totals.seen });
    }
    return hand.ask(job.body);
  }
}
