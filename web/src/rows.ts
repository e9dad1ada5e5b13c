// The rows in view, as two numbers that can be changed.

import { h } from "./dom";
import { t } from "./i18n";
import type { Scene } from "./scene";
import type { Focus } from "./state";

export class RowRange {
  readonly element = h("div", { class: "group rows", role: "group" });
  private readonly first = h("input", { type: "number", min: 0 });
  private readonly last = h("input", { type: "number", min: 0 });

  constructor(private readonly choose: (focus: Focus & { axis: "query" }) => void) {
    const changed = (): void => {
      const [a, b] = [Number(this.first.value), Number(this.last.value)];
      if (Number.isFinite(a) && Number.isFinite(b)) this.choose({ axis: "query", from: Math.min(a, b), to: Math.max(a, b) });
    };
    this.first.addEventListener("change", changed);
    this.last.addEventListener("change", changed);
    this.furnish();
  }

  furnish(): void {
    this.first.setAttribute("aria-label", t("firstRow"));
    this.last.setAttribute("aria-label", t("lastRow"));
    this.element.setAttribute("aria-label", t("rows"));
    this.element.replaceChildren(h("span", { class: "faint" }, t("rows")), this.first, h("span", { class: "faint" }, "–"), this.last);
  }

  show({ view, layer }: Scene): void {
    const shown = [Math.max(0, Math.floor(view.y0)), Math.min(layer.rows, Math.ceil(view.y1)) - 1];
    [this.first, this.last].forEach((input, n) => {
      input.max = String(layer.rows - 1);
      if (document.activeElement !== input) input.value = String(shown[n]);
    });
  }
}
