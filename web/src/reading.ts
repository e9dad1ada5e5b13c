// The tokens beside the map: as text or as lines, with a table of the largest weights for who does not see them.

import { heaviest, weightsOf } from "./chosen";
import { Choice, h } from "./dom";
import { count, number, t } from "./i18n";
import { Lines, windowOf } from "./lines";
import type { Scene } from "./scene";
import type { Source } from "./source";
import type { Focus, State } from "./state";
import { TextView } from "./text";
import { keyToken, queryToken, quoted } from "./tokens";

const TABLED = 20;
/** Stands for the token in a sentence until its element takes the place. */
const MARK = "\u0000";

export interface ReadingEvents {
  choose(focus: Focus): void;
  panel(panel: State["panel"]): void;
  turn(axis: "query" | "key"): void;
  topP(share: number): void;
  failed(why: string): void;
}

export class Reading {
  readonly element = h("section", { class: "reading" });
  private readonly tabs = h("div", { class: "tabs" });
  private readonly caption = h("div", { class: "caption", role: "status" });
  private readonly table = h("table", { class: "unseen" });
  private readonly share = h("input", { type: "range", min: 0.05, max: 1, step: 0.01 });
  private readonly shareText = h("output");
  private readonly text: TextView;
  private readonly lines: Lines;
  private panel!: Choice<State["panel"]>;
  private axis!: Choice<"query" | "key">;
  private asked = 0;
  private drawn = "";

  constructor(
    private readonly source: Source,
    private readonly events: ReadingEvents,
  ) {
    this.text = new TextView(events.choose);
    this.lines = new Lines(events.choose);
    this.share.addEventListener("input", () => events.topP(Number(this.share.value)));
    this.element.append(this.tabs, this.caption, this.text.element, this.lines.note, this.lines.element, this.table);
    this.furnish();
  }

  furnish(): void {
    const { events } = this;
    this.panel = new Choice<State["panel"]>(t("panel"), "", [["text", t("text")], ["lines", t("lines")]], events.panel);
    this.axis = new Choice<"query" | "key">(t("direction"), "", [["query", t("reads")], ["key", t("readBy")]], events.turn);
    this.share.setAttribute("aria-label", t("topP"));
    this.text.element.setAttribute("aria-label", t("textLabel"));
    this.lines.element.setAttribute("aria-label", t("linesLabel"));
    this.lines.canvas.setAttribute("aria-label", t("linesLabel"));
    this.element.setAttribute("aria-label", t("readingLabel"));
    this.tabs.replaceChildren(
      this.panel.element,
      this.axis.element,
      h("label", { class: "group", title: t("topPHelp") }, h("span", { class: "faint" }, t("topP")), this.share, this.shareText),
    );
    this.drawn = "";
  }

  show(scene: Scene): void {
    const { panel, focus, topP, left, hide } = scene.state;
    this.panel.value = panel;
    this.axis.value = focus?.axis ?? "query";
    this.share.value = String(topP);
    this.shareText.textContent = topP.toFixed(2);
    this.text.element.hidden = panel !== "text";
    this.lines.element.hidden = this.lines.note.hidden = panel !== "lines";
    const part = panel === "lines" ? [windowOf(scene), this.element.clientWidth] : null;
    const key = JSON.stringify([left, hide, scene.look, focus, topP, panel, part, t("sum")]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.fetch(scene, ++this.asked).catch((error: unknown) => this.events.failed(error instanceof Error ? error.message : String(error)));
  }

  private async fetch(scene: Scene, asked: number): Promise<void> {
    const { state, layer } = scene;
    const { focus, left, hide, topP } = state;
    const values = focus && (await weightsOf(this.source, left, layer, hide, focus));
    if (asked !== this.asked) return;
    const kept = values ? heaviest(values, topP) : [];
    this.describe(scene, values, kept);
    if (state.panel === "text") {
      this.text.fill(scene, values, kept);
      return;
    }
    const part = windowOf(scene);
    const rows = await this.source.part(left, part.r0, part.r1, 0, layer.cols, hide);
    if (asked === this.asked) this.lines.draw(scene, rows, part);
  }

  private token({ record, layer }: Scene, axis: "query" | "key", n: number): string | null {
    return axis === "query" ? queryToken(record, layer, n) : keyToken(record, n);
  }

  private name(scene: Scene, axis: "query" | "key", n: number): string {
    const token = this.token(scene, axis, n);
    return token === null ? "" : `“${quoted(token)}”`;
  }

  /** The caption, and the largest weights as a table. */
  private describe(scene: Scene, values: Float32Array | null, kept: number[]): void {
    const { focus } = scene.state;
    if (!focus || !values) {
      this.caption.textContent = t("none");
      this.table.replaceChildren();
      return;
    }
    const along = focus.axis === "key" ? "query" : "key";
    const own = focus.axis === "key" ? focus.at : focus.from;
    const sum = t("sum", { x: number(Number(kept.reduce((total, n) => total + values[n], 0).toPrecision(3))) });
    const says = (token: string): string =>
      focus.axis === "key"
        ? t("ofKey", { j: count(own), token })
        : focus.from === focus.to
          ? t("ofQuery", { i: count(own), token })
          : t("ofQueries", { a: count(focus.from), b: count(focus.to) });
    const [before, after = ""] = says(MARK).split(MARK);
    const token = this.token(scene, focus.axis, own);
    this.caption.replaceChildren(before, ...(after && token !== null ? [h("bdi", { class: "token" }, quoted(token, 30))] : []), `${after} — ${sum}`);
    const rows = kept
      .slice(0, TABLED)
      .map((n) => h("tr", {}, h("td", {}, String(n)), h("td", {}, this.name(scene, along, n)), h("td", {}, number(values[n]))));
    this.table.replaceChildren(
      h("caption", {}, `${says(this.name(scene, focus.axis, own))} — ${sum}`),
      h("thead", {}, h("tr", {}, h("th", {}, t(along)), h("th", {}, t("text")), h("th", {}, t("weight")))),
      h("tbody", {}, ...rows),
    );
  }
}
