// Everything that a part of the page needs to draw itself.

import type { Look, Palette } from "./colour";
import type { Probe } from "./map";
import type { HeadRef, LayerData, PageData, RecordData } from "./payload";
import type { Hits } from "./search";
import type { State, View } from "./state";
import { t } from "./i18n";

export interface Ink {
  text: string;
  faint: string;
  line: string;
  accent: string;
  second: string;
  /** What is written on the accent. */
  mark: string;
  panel: string;
  ground: string;
  /** Behind what the mask hides. */
  hidden: string;
  font: string;
}

export interface Scene {
  data: PageData;
  state: State;
  record: RecordData;
  layer: LayerData;
  look: Look;
  ink: Ink;
  /** The part of the matrix in view, whole where the state names none. */
  view: View;
  probe: Probe | null;
  hits: Hits;
  /** Whether the two chosen heads have maps of one size, so that they can be subtracted. */
  comparable: boolean;
}

export function inkOf(root: HTMLElement): Ink {
  const style = getComputedStyle(root);
  const get = (name: string): string => style.getPropertyValue(name).trim();
  return {
    text: get("--text"),
    faint: get("--faint"),
    line: get("--line"),
    accent: get("--accent"),
    second: get("--second"),
    mark: get("--on-accent"),
    panel: get("--panel"),
    ground: get("--ground"),
    hidden: get("--hidden"),
    font: style.fontFamily,
  };
}

export const recordOf = (data: PageData, ref: HeadRef): RecordData => data.records[ref.record];
export const layerOf = (data: PageData, ref: HeadRef): LayerData => data.records[ref.record].layers[ref.layer];

export function lookOf(data: PageData, state: State, ref: HeadRef, dark: boolean): Look {
  const { scale, pooling, contrast, palette } = state;
  const chosen: Exclude<Palette, "auto"> = palette === "auto" ? (dark ? "ember" : "ink") : palette;
  return { scale, pooling, contrast, palette: chosen, dark, keys: layerOf(data, ref).cols };
}

export const headName = (layer: LayerData, head: number): string => `${t("layer")} ${layer.index} · ${t("head")} ${layer.heads[head]}`;

/** The name of a head, with that of its record where there are several. */
export function nameOf(data: PageData, ref: HeadRef): string {
  const name = headName(layerOf(data, ref), ref.head);
  return data.records.length > 1 ? `${recordOf(data, ref).title} — ${name}` : name;
}
