// What acts on the map: which head, how near, which scale, pooling, sinks, comparison.

import type { Pooling, Scale } from "./colour";
import { button, Choice, h } from "./dom";
import { t } from "./i18n";
import { headName, type Scene } from "./scene";

export interface ToolbarEvents {
  step(layers: number, heads: number): void;
  zoom(factor: number): void;
  fit(): void;
  scale(scale: Scale): void;
  pooling(pooling: Pooling): void;
  hide(keys: number): void;
  compare(): void;
}

export class Toolbar {
  readonly element = h("div", { class: "tools", role: "toolbar" });
  private readonly title = h("strong", { "aria-live": "polite" });
  private scale!: Choice<Scale>;
  private pooling!: Choice<Pooling>;
  private hide!: Choice<number>;
  private compare!: HTMLButtonElement;

  constructor(private readonly events: ToolbarEvents) {
    this.furnish();
  }

  furnish(): void {
    const { events } = this;
    this.scale = new Choice<Scale>(t("scale"), t("scaleHelp"), [["log", t("scaleLog")], ["linear", t("scaleLinear")], ["uniform", t("scaleUniform")]], events.scale);
    this.pooling = new Choice<Pooling>(t("pooling"), t("poolHelp"), [["max", t("poolMax")], ["mass", t("poolMass")]], events.pooling);
    this.hide = new Choice<number>(t("hideSink"), t("hideHelp"), [[0, t("hideNone")], [1, "1"], [4, "4"]], events.hide);
    this.compare = button("compare", t("compare"), events.compare, t("compare"));
    this.element.setAttribute("aria-label", t("toolbar"));
    this.element.replaceChildren(
      h("span", { class: "group title" }, button("left", t("previousHead"), () => events.step(0, -1)), this.title, button("right", t("nextHead"), () => events.step(0, 1))),
      h("span", { class: "group" }, button("minus", t("zoomOut"), () => events.zoom(1 / 0.6)), button("fit", t("fit"), events.fit), button("plus", t("zoomIn"), () => events.zoom(0.6))),
      this.scale.element,
      this.pooling.element,
      h("span", { class: "group" }, h("span", { class: "faint" }, t("hideSink")), this.hide.element),
      this.compare,
    );
  }

  show({ state, layer, comparable }: Scene): void {
    this.title.textContent = headName(layer, state.left.head);
    this.scale.value = state.scale;
    this.pooling.value = state.pooling;
    this.hide.value = state.hide;
    const next = !state.right ? t("compare") : state.difference || !comparable ? t("onlyOne") : t("difference");
    this.compare.lastChild!.textContent = next;
    this.compare.title = next;
    this.compare.setAttribute("aria-label", next);
    this.compare.setAttribute("aria-pressed", String(state.right !== null));
  }
}
