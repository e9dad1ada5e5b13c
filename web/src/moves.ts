// From one state to the next: pure steps that keys, buttons and clicks share.

import type { HeadRef, PageData } from "./payload";
import { sameHead } from "./payload";
import { layerOf, recordOf } from "./scene";
import type { State } from "./state";

/** A click on a head of the grid: look at it, or hold it beside. */
export function opened(state: State, ref: HeadRef, beside: boolean): Partial<State> {
  return beside ? { right: sameHead(ref, state.right) ? null : ref } : { left: ref };
}

/** The next head or layer, from the last on to the first. */
export function stepped(data: PageData, { left }: State, layers: number, heads: number): Partial<State> {
  const all = recordOf(data, left).layers;
  let layer = (left.layer + layers + all.length) % all.length;
  let head = left.head + heads;
  if (head < 0) {
    layer = (layer - 1 + all.length) % all.length;
    head = all[layer].heads.length - 1;
  } else if (head >= all[layer].heads.length) {
    head = layers ? all[layer].heads.length - 1 : 0;
    if (!layers) layer = (layer + 1) % all.length;
  }
  return { left: { record: left.record, layer, head } };
}

/** One map, then two, then their difference, then one again. */
export function compared(data: PageData, { left, right, difference }: State, comparable: boolean): Partial<State> {
  if (right && !difference && comparable) return { difference: true };
  if (right) return { right: null, difference: false };
  const record = (left.record + 1) % data.records.length;
  const there = data.records.length > 1 && data.records[record].layers[left.layer]?.heads[left.head] !== undefined;
  const next = (left.head + 1) % layerOf(data, left).heads.length;
  return { right: there ? { ...left, record } : { ...left, head: next }, difference: false };
}

/** What was chosen along one axis, seen along the other. */
export function turned(data: PageData, state: State, axis: "query" | "key"): Partial<State> {
  const { focus, left } = state;
  const { rows, cols, ahead } = layerOf(data, left);
  if (!focus || focus.axis === axis) return {};
  if (focus.axis === "query") return { focus: { axis: "key", at: Math.max(0, Math.min(cols - 1, focus.to + ahead)) } };
  const row = Math.max(0, Math.min(rows - 1, focus.at - ahead));
  return { focus: { axis: "query", from: row, to: row } };
}

export const nextScale = (state: State): Partial<State> => ({ scale: ({ log: "linear", linear: "uniform", uniform: "log" } as const)[state.scale] });
