// The top line: what this is, the search for a token, and what acts on the page as a whole.

import { button, h, icon, ICONS } from "./dom";
import { count, language, t } from "./i18n";
import type { PageData } from "./payload";
import type { Scene } from "./scene";
import { quoted } from "./tokens";

export interface HeaderEvents {
  find(text: string): void;
  nextHit(step: number): void;
  copyLink(): void;
  copyPicture(): void;
  savePicture(): void;
  theme(): void;
  language(): void;
  help(): void;
}

export class Header {
  readonly element = h("header", { class: "bar" });
  readonly find = h("input", { type: "search", class: "find", spellcheck: "false" });
  private readonly note = h("span", { class: "hits", role: "status" });

  constructor(
    private readonly data: PageData,
    private readonly events: HeaderEvents,
  ) {
    const { find } = this;
    find.addEventListener("input", () => events.find(find.value));
    find.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") events.nextHit(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") {
        find.value = "";
        events.find("");
        find.blur();
      }
    });
    this.furnish();
  }

  furnish(): void {
    const { data, events } = this;
    const { layers } = data.records[0];
    const heads = Math.max(...layers.map((layer) => layer.heads.length));
    const { rows, cols } = layers.reduce((a, b) => (b.cols > a.cols ? b : a));
    const size = rows === cols ? t("tokens", { n: count(cols) }) : t("queriesKeys", { rows: count(rows), cols: count(cols) });
    this.find.placeholder = t("search");
    this.find.setAttribute("aria-label", t("search"));
    // A frame without an address of its own has no link to give.
    const linkable = location.protocol !== "about:";
    this.element.replaceChildren(
      h("h1", {}, data.records.map(({ title }) => quoted(title, 80)).join(" / ")),
      h("span", { class: "facts" }, `${t("layersHeads", { layers: layers.length, heads })} · ${size}`),
      h("span", { class: "spring" }),
      h("label", { class: "finder" }, icon(ICONS.search), this.find, this.note),
      ...(linkable ? [button("link", t("link"), events.copyLink)] : []),
      button("picture", t("copyPicture"), events.copyPicture),
      button("save", t("savePicture"), events.savePicture),
      button("theme", t("theme"), events.theme),
      h("button", { type: "button", class: "labelled language", lang: language() === "en" ? "zh-Hant" : "en", onclick: events.language }, t("language")),
      button("help", t("help"), events.help),
    );
  }

  show({ state, hits }: Scene): void {
    if (this.find.value !== state.find && document.activeElement !== this.find) this.find.value = state.find;
    const { cols, at } = hits;
    this.note.textContent = !state.find ? "" : cols.length ? t("found", { n: at + 1 || "–", all: cols.length }) : t("nothing");
  }
}
