// The list of keys and gestures.

import { button, h } from "./dom";
import { keysHelp, t } from "./i18n";

export class Help {
  readonly element = h("dialog", { class: "help" });

  open(): void {
    const rows = keysHelp().map(([keys, what]) => h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, what)));
    this.element.setAttribute("aria-label", t("help"));
    this.element.replaceChildren(
      h("div", { class: "row" }, h("h2", {}, t("help")), button("close", t("close"), () => this.element.close())),
      h("table", {}, h("tbody", {}, ...rows)),
    );
    this.element.showModal();
  }
}
