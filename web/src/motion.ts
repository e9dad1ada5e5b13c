// Smooth ways from one part of the matrix to another.

import type { View } from "./state";

const DURATION = 190;

const still = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The view at `share` of the way; the size changes at an even rate, around the point that stays in place. */
export function between(from: View, to: View, share: number): View {
  const axis = (a0: number, a1: number, b0: number, b1: number): [number, number] => {
    const [was, will] = [a1 - a0, b1 - b0];
    const size = was * (will / was) ** share;
    const moved = Math.abs(will - was) > 1e-9 * was ? (size - was) / (will - was) : share;
    const low = a0 + (b0 - a0) * moved;
    return [low, low + size];
  };
  const [x0, x1] = axis(from.x0, from.x1, to.x0, to.x1);
  const [y0, y1] = axis(from.y0, from.y1, to.y0, to.y1);
  return { x0, x1, y0, y1 };
}

export class Motion {
  /** Where a glide is going; null while nothing moves. */
  goal: View | null = null;
  private turn = 0;

  constructor(private readonly step: (view: View) => void) {}

  stop(): void {
    this.goal = null;
    this.turn++;
  }

  glide(from: View, to: View): void {
    const turn = ++this.turn;
    this.goal = to;
    const finish = (): void => {
      this.goal = null;
      this.step(to);
    };
    if (still()) {
      finish();
      return;
    }
    const began = performance.now();
    const frame = (): void => {
      if (turn !== this.turn) return;
      const time = (performance.now() - began) / DURATION;
      if (time >= 1) finish();
      else {
        this.step(between(from, to, 1 - (1 - time) ** 3));
        requestAnimationFrame(frame);
      }
    };
    requestAnimationFrame(frame);
  }
}
