// What the colours mean: the bar, how strongly small weights are lifted, the palette.

import { css, ends, shades, type Look, type Palette } from "./colour";
import { h, prepared } from "./dom";
import { number, t } from "./i18n";
import type { Ink, Scene } from "./scene";

const PALETTES: readonly Palette[] = ["auto", "ember", "ink", "viridis", "cividis", "grey"];
export const BAR_HEIGHT = 34;

/** The bar with the numbers of its ends and its middle, `BAR_HEIGHT` tall. */
export function drawBar(ctx: CanvasRenderingContext2D, left: number, top: number, wide: number, look: Look, ink: Ink, difference: boolean): void {
  const colours = shades(difference ? (look.dark ? "difference" : "differenceLight") : look.palette);
  for (let x = 0; x < wide; x++) {
    ctx.fillStyle = css(colours[Math.round((x / (wide - 1)) * (colours.length - 1))]);
    ctx.fillRect(left + x, top, 1.5, 11);
  }
  ctx.strokeStyle = ink.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(left + 0.5, top + 0.5, wide - 1, 10);
  ctx.font = `10.5px ${ink.font}`;
  ctx.fillStyle = ink.faint;
  ctx.textBaseline = "top";
  ["left", "center", "right"].forEach((align, n) => {
    ctx.textAlign = align as CanvasTextAlign;
    ctx.fillText(marks(look, difference)[n], left + (n * wide) / 2, top + 17);
  });
}

function marks(look: Look, difference: boolean): [string, string, string] {
  const [low, high] = ends(look);
  if (difference) {
    const far = look.scale === "linear" ? number(high) : "×100";
    const near = look.scale === "linear" ? `−${number(high)}` : "÷100";
    return [near, look.scale === "linear" ? "0" : "×1", far];
  }
  const times = look.scale === "uniform" ? "×" : "";
  const middle = look.scale === "linear" ? high / 2 : Math.sqrt(low * high);
  return [low, middle, high].map((value) => `${number(Number(value.toPrecision(2)))}${times}`) as [string, string, string];
}

export interface LegendEvents {
  contrast(value: number): void;
  palette(palette: Palette): void;
}

export class Legend {
  readonly element = h("div", { class: "legend" });
  private readonly bar = h("canvas", { class: "colour-bar", role: "img" });
  private readonly contrast = h("input", { type: "range", min: 0, max: 1, step: 0.01 });
  private readonly palette = h("select");

  constructor(events: LegendEvents) {
    this.contrast.addEventListener("input", () => events.contrast(Number(this.contrast.value)));
    this.palette.addEventListener("change", () => events.palette(this.palette.value as Palette));
    this.furnish();
  }

  furnish(): void {
    this.contrast.setAttribute("aria-label", t("contrast"));
    this.palette.setAttribute("aria-label", t("palette"));
    this.palette.title = t("palette");
    this.palette.replaceChildren(...PALETTES.map((name) => h("option", { value: name }, t(name))));
    this.element.replaceChildren(
      this.bar,
      h("div", { class: "row" }, h("label", { class: "group" }, h("span", { class: "faint" }, t("contrast")), this.contrast), this.palette),
    );
  }

  show({ state, look, ink, comparable }: Scene): void {
    this.contrast.value = String(state.contrast);
    this.palette.value = state.palette;
    const difference = state.right !== null && state.difference && comparable;
    const two = difference ? 2 : 1;
    const wide = this.bar.clientWidth;
    const ctx = prepared(this.bar, wide, BAR_HEIGHT * two);
    this.bar.style.height = `${BAR_HEIGHT * two}px`;
    if (!ctx) return;
    drawBar(ctx, 0, 0, wide, look, ink, false);
    if (difference) drawBar(ctx, 0, BAR_HEIGHT, wide, look, ink, true);
    const [low, , high] = marks(look, false);
    this.bar.setAttribute("aria-label", `${t("colours")}: ${low} – ${high}`);
  }
}
