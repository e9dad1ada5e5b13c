// The tokens as running text, coloured by what the chosen query or key weighs them.

import { css, inkOn, shades } from "./colour";
import { h } from "./dom";
import { count, number, t } from "./i18n";
import type { Scene } from "./scene";
import type { Focus } from "./state";
import { keyToken, queryToken, running } from "./tokens";

/** At most as many tokens are text at a time: the ones around the chosen one. */
const SHOWN = 1200;
const FAR = 12;

export class TextView {
  readonly element = h("div", { class: "text", role: "region", tabindex: 0 });

  constructor(private readonly choose: (focus: Focus) => void) {}

  /** `values`: weights along the other axis than the focus; `kept`: the indices that get a colour. */
  fill(scene: Scene, values: Float32Array | null, kept: number[]): void {
    const { layer, record, state } = scene;
    const { focus } = state;
    const along = focus?.axis === "key" ? "query" : "key";
    const all = along === "key" ? layer.cols : layer.rows;
    const centre = focus ? (focus.axis === "query" ? focus.to + layer.ahead : focus.at - layer.ahead) : 0;
    const first = Math.max(0, Math.min(all - SHOWN, Math.round(centre - SHOWN * 0.8)));
    const token = (n: number): string | null => (along === "key" ? keyToken(record, n) : queryToken(record, layer, n));
    const one = this.painter(scene, values, kept, token);
    const parts: Node[] = [];
    const far = kept.filter((n) => n < first || n >= first + SHOWN).slice(0, FAR);
    if (far.length) parts.push(h("p", {}, ...far.map((n) => h("span", { class: "far" }, h("small", {}, `${count(n)} `), one(n)))));
    const body = h("p", {}, first > 0 ? "… " : null);
    for (let n = first; n < Math.min(all, first + SHOWN); n++) {
      body.append(one(n));
      if (/\n/.test((token(n) ?? "").slice(0, 100))) body.append(h("br"));
    }
    if (first + SHOWN < all) body.append(" …");
    parts.push(body);
    this.element.replaceChildren(...parts);
    this.element.onclick = (event) => this.clicked(event, scene, along);
    this.reveal(this.element.querySelector<HTMLElement>(".self"));
  }

  /** Scroll to a token, but never the page around the text. */
  private reveal(token: HTMLElement | null): void {
    if (!token) return;
    const [box, own] = [this.element.getBoundingClientRect(), token.getBoundingClientRect()];
    if (own.top < box.top || own.bottom > box.bottom) this.element.scrollTop += own.top - box.top - 0.72 * box.height;
  }

  private painter(scene: Scene, values: Float32Array | null, kept: number[], token: (n: number) => string | null): (n: number) => HTMLElement {
    const { layer, look } = scene;
    const { focus } = scene.state;
    const held = new Set(kept);
    const top = kept.length ? values![kept[0]] : 0;
    const colours = shades(look.palette);
    return (n) => {
      const word = token(n);
      const span = h("span", { "data-n": n, dir: "auto" }, word === null ? `${n} ` : running(word));
      const w = values?.[n];
      if (w !== undefined) {
        span.title = `${count(n)}: ${Number.isNaN(w) ? t("hidden") : number(w)}`;
        if (Number.isNaN(w)) span.className = "out";
        if (held.has(n) && top > 0) {
          const shade = colours[Math.round((0.1 + 0.9 * Math.sqrt(w / top)) * (colours.length - 1))];
          span.style.backgroundColor = css(shade);
          span.style.color = inkOn(shade);
        }
      }
      const own = focus?.axis === "query" ? n - layer.ahead >= focus.from && n - layer.ahead <= focus.to : focus?.axis === "key" && n + layer.ahead === focus.at;
      if (own) span.classList.add("self");
      return span;
    };
  }

  private clicked(event: MouseEvent, { layer, state }: Scene, along: "query" | "key"): void {
    const n = (event.target as HTMLElement).closest<HTMLElement>("[data-n]")?.dataset.n;
    if (n === undefined) return;
    const row = along === "key" ? Number(n) - layer.ahead : Number(n);
    const col = along === "key" ? Number(n) : Number(n) + layer.ahead;
    if (event.shiftKey || state.focus?.axis === "key") this.choose({ axis: "key", at: Math.max(0, Math.min(layer.cols - 1, col)) });
    else if (row >= 0 && row < layer.rows) this.choose({ axis: "query", from: row, to: row });
  }
}
