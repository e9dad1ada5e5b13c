// The numbers of the cell under the cursor, or of the bin of cells that a pixel holds.

import { h } from "./dom";
import { count, number, said, t } from "./i18n";
import type { Probe } from "./map";
import type { Scene } from "./scene";
import { keyToken, queryToken, quoted } from "./tokens";

type Values = Probe["values"];

const short = (x: number): string => number(Number(x.toPrecision(3)));

export class Card {
  readonly element = h("div", { class: "card" });

  show(scene: Scene): void {
    const { probe, layer, state } = scene;
    const lines: HTMLElement[] = [];
    if (probe) {
      const values = h("div", { class: "values" }, this.value(scene, probe, probe.values));
      if (state.right && probe.other) {
        values.firstElementChild!.classList.add("first");
        values.append(this.value(scene, probe, probe.other, "other"));
      }
      lines.push(values, this.end("query", scene, probe), this.end("key", scene, probe));
    } else lines.push(h("p", { class: "faint" }, t("pointAt")));
    if (layer.baked && layer.why) {
      const n = count(2 ** layer.baked.level);
      const words = { why: said(layer.why), n };
      lines.push(h("p", { class: "note" }, layer.baked.level ? t("baked", words) : t("bakedExact", words)));
    }
    this.element.replaceChildren(...lines);
  }

  private value({ state }: Scene, probe: Probe, of: Values, kind = ""): HTMLElement {
    const one = probe.i1 - probe.i0 === 1 && probe.j1 - probe.j0 === 1;
    const box = (value: string, ...more: HTMLElement[]): HTMLElement => h("div", { class: kind }, h("div", { class: "value" }, value), ...more);
    if (!of) return box("…");
    if (!(of.uniform > 0)) return h("div", { class: kind }, h("div", { class: "faint" }, t(state.hide && probe.j0 < state.hide ? "hiddenSink" : "hidden")));
    if (one) return box(number(of.max), h("div", { class: "faint" }, t("timesUniform", { x: short(of.lift) })));
    return box(
      number(state.pooling === "max" ? of.max : of.mass),
      h("div", { class: "faint" }, state.pooling === "max" ? `${t("largest")} · ${t("mass")} ${short(of.mass)}` : `${t("mass")} · ${t("largest")} ${short(of.max)}`),
      h("div", { class: "faint" }, t("timesUniform", { x: short(of.mass / of.uniform) })),
    );
  }

  private end(axis: "query" | "key", { record, layer }: Scene, { i0, i1, j0, j1 }: Probe): HTMLElement {
    const [from, to] = axis === "query" ? [i0, i1] : [j0, j1];
    const single = to - from === 1;
    const token = !single ? null : axis === "query" ? queryToken(record, layer, from) : keyToken(record, from);
    const name = single ? t(axis) : t(axis === "query" ? "queries" : "keys");
    const place = single ? count(from) : `${count(from)}–${count(to - 1)}`;
    return h("div", { class: "pair" }, h("span", { class: "faint" }, `${name} ${place}`), token === null ? null : h("bdi", { class: "token" }, quoted(token, 40)));
  }
}
