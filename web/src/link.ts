// The address of what is on the screen: a state as the fragment of a link, and back.

import type { HeadRef, PageData } from "./payload";
import type { State } from "./state";

const head = (ref: HeadRef): string => `${ref.record}.${ref.layer}.${ref.head}`;

/** Only what differs from the beginning, so that links stay short. */
export function toHash(state: State, start: State): string {
  const out = new URLSearchParams();
  out.set("at", head(state.left));
  if (state.right) out.set("with", head(state.right));
  if (state.right && state.difference) out.set("difference", "1");
  if (state.view) {
    const { x0, x1, y0, y1 } = state.view;
    out.set("view", [x0, x1, y0, y1].map((n) => String(Number(n.toFixed(2)))).join(","));
  }
  for (const name of ["scale", "pooling", "hide", "contrast", "palette", "colourBy", "panel", "topP", "find"] as const) {
    if (state[name] !== start[name]) out.set(name, String(state[name]));
  }
  if (state.focus) {
    out.set("focus", state.focus.axis === "key" ? `k${state.focus.at}` : `q${state.focus.from}-${state.focus.to}`);
  }
  return out.toString();
}

/** The state that a link describes; whatever does not fit the page is left as it was. */
export function fromHash(hash: string, start: State, data: PageData): State {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state: State = { ...start };
  const ref = (name: string): HeadRef | null => {
    const [record, layer, number] = (given.get(name) ?? "").split(".").map(Number);
    const heads = data.records[record]?.layers[layer]?.heads;
    return heads && number >= 0 && number < heads.length ? { record, layer, head: number } : null;
  };
  state.left = ref("at") ?? start.left;
  state.right = ref("with");
  state.difference = given.get("difference") === "1" && state.right !== null;
  const view = (given.get("view") ?? "").split(",").map(Number);
  if (view.length === 4 && view.every(Number.isFinite) && view[0] < view[1] && view[2] < view[3]) {
    state.view = { x0: view[0], x1: view[1], y0: view[2], y1: view[3] };
  }
  const pick = <T extends string>(name: string, allowed: readonly T[], otherwise: T): T => {
    const value = given.get(name) as T | null;
    return value !== null && allowed.includes(value) ? value : otherwise;
  };
  const amount = (name: string, low: number, high: number, otherwise: number): number => {
    const value = given.has(name) ? Number(given.get(name)) : NaN;
    return value >= low && value <= high ? value : otherwise;
  };
  state.scale = pick("scale", ["log", "linear", "uniform"], start.scale);
  state.pooling = pick("pooling", ["max", "mass"], start.pooling);
  state.palette = pick("palette", ["auto", "ember", "ink", "viridis", "cividis", "grey"], start.palette);
  state.panel = pick("panel", ["text", "lines"], start.panel);
  state.hide = Math.round(amount("hide", 0, 64, start.hide));
  state.contrast = amount("contrast", 0, 1, start.contrast);
  state.topP = amount("topP", 0.05, 1, start.topP);
  state.find = given.get("find") ?? start.find;
  const colourBy = given.get("colourBy");
  if (colourBy !== null && (colourBy === "" || colourBy in data.records[0].scores)) state.colourBy = colourBy;
  const focus = /^(?:k(\d+)|q(\d+)-(\d+))$/.exec(given.get("focus") ?? "");
  if (focus) {
    const { rows, cols } = data.records[state.left.record].layers[state.left.layer];
    if (focus[1] !== undefined) state.focus = { axis: "key", at: Math.min(Number(focus[1]), cols - 1) };
    else {
      const from = Math.min(Number(focus[2]), rows - 1);
      state.focus = { axis: "query", from, to: Math.max(from, Math.min(Number(focus[3]), rows - 1)) };
    }
  }
  return state;
}
