// What to do first, for who sees the page for the first time.

import { button, h } from "./dom";
import { t } from "./i18n";
import { remember, remembered } from "./preferences";

/** Gone for good once it was read. */
export class Hint {
  readonly element = h("div", { class: "hint", role: "note" });

  constructor() {
    this.element.hidden = remembered("hint") === "read";
    this.furnish();
  }

  furnish(): void {
    this.element.replaceChildren(h("span", {}, t("hint")), button("close", t("close"), () => this.read()));
  }

  read(): void {
    if (this.element.hidden) return;
    this.element.hidden = true;
    remember("hint", "read");
  }
}
