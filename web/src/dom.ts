// Elements without markup: text only ever becomes text.

type Child = Node | string | null | undefined | false;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | ((event: Event) => void) | null | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = String(value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((c): c is Node | string => c !== null && c !== undefined && c !== false));
  return element;
}

/** A row of buttons of which one is on. */
export class Choice<T extends string | number> {
  readonly element: HTMLElement;
  private readonly buttons: HTMLButtonElement[];
  private current: T | null = null;

  constructor(
    name: string,
    help: string,
    private readonly options: readonly (readonly [T, string])[],
    private readonly pick: (value: T) => void,
  ) {
    this.buttons = options.map(([value, text]) => h("button", { type: "button", role: "radio", onclick: () => pick(value) }, text));
    this.element = h("div", { class: "choice", role: "radiogroup", "aria-label": name, title: help }, ...this.buttons);
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  set value(value: T) {
    if (value === this.current) return;
    this.current = value;
    this.buttons.forEach((button, n) => {
      const on = this.options[n][0] === value;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    });
  }

  private key(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const { options } = this;
    const next = (options.findIndex(([value]) => value === this.current) + step + options.length) % options.length;
    this.pick(options[next][0]);
    this.buttons[next].focus();
  }
}

/** A canvas at the density of the screen, cleared, in its own pixels; null while it has no size. */
export function prepared(canvas: HTMLCanvasElement, wide: number, tall: number, dense = window.devicePixelRatio || 1): CanvasRenderingContext2D | null {
  if (!(wide > 0 && tall > 0)) return null;
  const [width, height] = [Math.round(wide * dense), Math.round(tall * dense)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const ctx = canvas.getContext("2d")!;
  ctx.setTransform(dense, 0, 0, dense, 0, 0);
  ctx.clearRect(0, 0, wide, tall);
  return ctx;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line drawing of 24 x 24. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1.6 1.6M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1.6-1.6",
  save: "M12 4v11m0 0-4-4m4 4 4-4M5 19h14",
  picture: "M4 6h4l1.5-2h5L16 6h4v13H4zM12 9.5a3.2 3.2 0 1 0 0 6.4 3.2 3.2 0 0 0 0-6.4z",
  theme: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.5 4.5",
  help: "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 1.8v.7M12 17.6v.1",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  close: "M6 6l12 12M18 6L6 18",
};

export function button(name: keyof typeof ICONS, title: string, act: () => void, text?: string): HTMLButtonElement {
  return h("button", { type: "button", class: text ? "labelled" : "icon", title, "aria-label": title, onclick: act }, icon(ICONS[name]), text);
}
