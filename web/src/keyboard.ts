// What each key does.

import { nextScale } from "./moves";
import type { State } from "./state";

export interface Commands {
  readonly state: State;
  set(change: Partial<State>): void;
  step(layers: number, heads: number): void;
  compare(): void;
  /** Move by sixths of the map. */
  shift(dx: number, dy: number): void;
  zoom(factor: number): void;
  fit(): void;
  /** Read the next cell. */
  walk(di: number, dj: number): void;
  /** Choose the query of the cell that is being read. */
  choose(): void;
  find(): void;
  showHelp(): void;
}

const ARROWS: Record<string, [number, number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const KEYS: Record<string, (on: Commands) => void> = {
  "+": (on) => on.zoom(0.6),
  "=": (on) => on.zoom(0.6),
  "-": (on) => on.zoom(1 / 0.6),
  _: (on) => on.zoom(1 / 0.6),
  "0": (on) => on.fit(),
  "[": (on) => on.step(0, -1),
  "]": (on) => on.step(0, 1),
  "{": (on) => on.step(-1, 0),
  "}": (on) => on.step(1, 0),
  Escape: (on) => on.set({ focus: null }),
  "/": (on) => on.find(),
  "?": (on) => on.showHelp(),
  s: (on) => on.set(nextScale(on.state)),
  p: (on) => on.set({ pooling: on.state.pooling === "max" ? "mass" : "max" }),
  h: (on) => on.set({ hide: on.state.hide ? 0 : 1 }),
  d: (on) => on.compare(),
  t: (on) => on.set({ panel: on.state.panel === "text" ? "lines" : "text" }),
};

/** Obey keys, unless they are meant for a field, a list or an open dialog. */
export function obeyKeys(on: Commands, busy: () => boolean): void {
  window.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || busy() || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      // Text and lines scroll by themselves.
      if (target.closest(".text, .lines-box, .side")) return;
      if (event.shiftKey) on.walk(arrow[0], arrow[1]);
      else on.shift(arrow[1], arrow[0]);
    } else if (event.key === "Enter" && target.tagName === "CANVAS") on.choose();
    else {
      const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
      if (!act) return;
      act(on);
    }
    event.preventDefault();
  });
}
