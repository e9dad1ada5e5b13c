// The left column: heads worth a look, the grid of all, and what the page is.

import { css, inkOn, shades } from "./colour";
import { h } from "./dom";
import { factsOf, type Fact, type Top } from "./facts";
import { Grid } from "./grid";
import { factName, number, t } from "./i18n";
import type { PageData } from "./payload";
import { keyOf, sameHead } from "./payload";
import { headName, type Scene } from "./scene";
import { scoreName, scoreStory } from "./scorewords";
import { quoted } from "./tokens";

export interface SidebarEvents {
  colourBy(score: string): void;
  fact(fact: Fact, top: Top): void;
}

export class Sidebar {
  readonly element = h("aside", { class: "side" });
  private readonly facts = h("section", { class: "known" });
  private readonly story = h("p", { class: "story", "aria-live": "polite" });
  private readonly select = h("select");
  private drawn = "";

  constructor(
    private readonly data: PageData,
    readonly grid: Grid,
    private readonly events: SidebarEvents,
  ) {
    this.select.addEventListener("change", () => events.colourBy(this.select.value));
    this.furnish();
  }

  furnish(): void {
    const scores = Object.keys(this.data.records[0].scores);
    this.select.setAttribute("aria-label", t("colourBy"));
    this.select.replaceChildren(h("option", { value: "" }, t("pictures")), ...scores.map((name) => h("option", { value: name }, scoreName(name))));
    this.drawn = "";
    this.element.replaceChildren(
      this.facts,
      h("div", { class: "row" }, h("h2", {}, t("heads")), h("label", {}, h("span", { class: "faint" }, t("colourBy")), this.select)),
      h("div", { class: "scroller" }, this.grid.canvas),
      this.grid.note,
      this.colophon(),
    );
  }

  show(scene: Scene): void {
    this.select.value = scene.state.colourBy;
    this.grid.show(scene);
    this.showFacts(scene);
  }

  private showFacts(scene: Scene): void {
    const { state, record, look, data } = scene;
    const key = JSON.stringify([state.left, state.colourBy, look.palette, t("worthALook")]);
    if (key === this.drawn) return;
    this.drawn = key;
    const facts = factsOf(record, state.left.record);
    this.facts.hidden = facts.length === 0;
    if (!facts.length) {
      this.facts.replaceChildren();
      return;
    }
    const focused = document.activeElement instanceof HTMLElement && this.facts.contains(document.activeElement) ? document.activeElement.dataset.top : undefined;
    const colours = shades(look.palette);
    const chip = (fact: Fact, top: Top): HTMLElement => {
      const layer = data.records[top.ref.record].layers[top.ref.layer];
      const word = colours[Math.round((0.06 + 0.94 * Math.min(1, top.value)) * (colours.length - 1))];
      const on = state.colourBy === fact.score && sameHead(top.ref, state.left);
      const says = `${scoreName(fact.score)}: ${headName(layer, top.ref.head)}, ${number(top.value)}`;
      const made = h(
        "button",
        { type: "button", class: "chip", title: says, "aria-label": says, "aria-pressed": String(on), "data-top": `${fact.score} ${keyOf(top.ref)}`, onclick: () => this.events.fact(fact, top) },
        h("b", {}, `${layer.index}.${layer.heads[top.ref.head]}`),
        h("i", {}, top.value.toFixed(2).replace(/^0/, "")),
      );
      made.style.setProperty("--chip", css(word));
      made.style.setProperty("--on-chip", inkOn(word));
      return made;
    };
    const told = facts.find((fact) => fact.score === state.colourBy);
    this.story.textContent = told ? scoreStory(told.score) : t("worthHelp");
    this.facts.replaceChildren(
      h("h2", {}, t("worthALook")),
      h("dl", {}, ...facts.flatMap((fact) => [h("dt", { title: scoreStory(fact.score), class: fact === told ? "on" : "" }, scoreName(fact.score)), h("dd", {}, ...fact.tops.map((top) => chip(fact, top)))])),
      this.story,
    );
    if (focused) this.facts.querySelector<HTMLElement>(`[data-top="${focused}"]`)?.focus();
  }

  private colophon(): HTMLElement {
    const { data } = this;
    const facts = data.records.flatMap((record) =>
      Object.entries(record.facts).map(([name, value]) => h("div", {}, h("dt", {}, factName(name)), h("dd", {}, quoted(value, 200)))),
    );
    const deviation = Math.max(0, ...data.records.map((record) => record.deviation ?? 0));
    const promise = data.server ? t("exactServed") : t("exact", { x: number(Number(deviation.toPrecision(2))) });
    return h("footer", { class: "colophon" }, h("details", {}, h("summary", {}, t("about")), h("p", {}, t("caution")), h("dl", {}, ...facts)), h("p", {}, promise));
  }
}
