// The page: state in, pictures out.

import { css, ends, shades, type Look, type Palette } from "./colour";
import { button, choice, h, icon, ICONS } from "./dom";
import { Grid } from "./grid";
import { count, keysHelp, language, number, preferredLanguage, setLanguage, t } from "./i18n";
import { MapCanvas, type Probe } from "./map";
import { Minimap } from "./minimap";
import type { HeadRef, LayerData, PageData, RecordData } from "./payload";
import { keyOf, sameHead } from "./payload";
import type { Planes } from "./head";
import { Reading } from "./reading";
import { Stale } from "./queue";
import type { Source } from "./source";
import { fromHash, initialState, toHash, type Focus, type State, type View } from "./state";
import { keyToken, queryToken, quoted, search } from "./tokens";
import { around, whole } from "./view";

const MINI = 160;

function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`regard.${name}`);
  } catch {
    return null;
  }
}

function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`regard.${name}`, value);
  } catch {
    // A sandboxed frame has no storage; the choice then lasts as long as the page.
  }
}

export class App {
  private readonly start: State;
  private state: State;
  private dark: boolean;
  private probe: Probe | null = null;
  private hits: { rows: number[]; cols: number[]; at: number } = { rows: [], cols: [], at: 0 };
  private mini: { key: string; planes: Planes } | null = null;
  private sweep = "";
  private queued = false;

  private readonly maps: MapCanvas[];
  private readonly grid: Grid;
  private readonly minimap: Minimap;
  private readonly reading: Reading;
  private readonly header = h("header", { class: "bar" });
  private readonly side = h("aside", { class: "side" });
  private readonly tools = h("div", { class: "tools", role: "toolbar" });
  private readonly panels = h("div", { class: "panels" });
  private readonly card = h("div", { class: "card" });
  private readonly nearby = h("div", { class: "nearby" });
  private readonly board = h("div", { class: "board" });
  private readonly colourBar = h("canvas", { class: "colour-bar", role: "img" });
  private readonly progress = h("progress", { max: 1, value: 0 });
  private readonly message = h("div", { class: "message", role: "status" });
  private readonly live = h("div", { class: "unseen", "aria-live": "polite" });
  private readonly tabs = h("div", { class: "tabs" });
  private readonly dialog = h("dialog", { class: "help" });
  private readonly find = h("input", { type: "search", class: "find", spellcheck: "false" });
  private readonly hitsNote = h("span", { class: "hits" });

  constructor(
    private readonly root: HTMLElement,
    private readonly data: PageData,
    readonly source: Source,
  ) {
    this.start = initialState(data);
    this.state = fromHash(location.hash, this.start, data);
    const theme = remembered("theme");
    this.dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    setLanguage((remembered("language") as "en" | "zh-Hant" | null) ?? preferredLanguage());
    const failed = (why: string): void => this.fail(why);
    this.maps = [0, 1, 2].map(
      () =>
        new MapCanvas(source, {
          view: (view) => this.set({ view }),
          probe: (probe) => this.probed(probe),
          focus: (focus) => this.set({ focus }),
          failed,
        }),
    );
    for (const map of this.maps) map.finestOf = (ref) => source.finest(ref);
    this.grid = new Grid(source, (ref, beside) => this.open(ref, beside));
    this.minimap = new Minimap((row, col) => this.centre(row, col));
    this.reading = new Reading(source, (focus) => this.set({ focus }), failed);
    this.find.value = this.state.find;
    this.find.addEventListener("input", () => this.look(this.find.value));
    this.find.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") this.nextHit(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") {
        this.find.value = "";
        this.look("");
        this.find.blur();
      }
    });
    this.build();
    this.hits = this.matches(this.state.find);
    window.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== toHash(this.state, this.start)) {
        this.state = fromHash(location.hash, this.start, data);
        this.render();
      }
    });
    new ResizeObserver(() => this.render()).observe(this.board);
    this.render();
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  private record(ref: HeadRef = this.state.left): RecordData {
    return this.data.records[ref.record];
  }

  private layer(ref: HeadRef = this.state.left): LayerData {
    return this.record(ref).layers[ref.layer];
  }

  private lookOf(ref: HeadRef = this.state.left): Look {
    const { scale, pooling, contrast, palette } = this.state;
    const chosen = palette === "auto" ? (this.dark ? "ember" : "ink") : palette;
    return { scale, pooling, contrast, palette: chosen, dark: this.dark, keys: this.layer(ref).cols };
  }

  private ink(): { text: string; faint: string; line: string; accent: string; second: string; mark: string; font: string; panel: string } {
    const style = getComputedStyle(this.root);
    const get = (name: string): string => style.getPropertyValue(name).trim();
    return {
      text: get("--text"),
      faint: get("--faint"),
      line: get("--line"),
      accent: get("--accent"),
      second: get("--second"),
      mark: get("--on-accent"),
      panel: get("--panel"),
      font: style.fontFamily,
    };
  }

  private view(): View {
    return this.state.view ?? whole(this.layer());
  }

  private comparable(): boolean {
    const { right } = this.state;
    if (!right) return false;
    const [a, b] = [this.layer(), this.layer(right)];
    return a.rows === b.rows && a.cols === b.cols && this.source.finest(this.state.left) === this.source.finest(right);
  }

  private set(change: Partial<State>): void {
    const before = this.state;
    this.state = { ...this.state, ...change };
    const sameSize = (a: HeadRef, b: HeadRef): boolean => this.layer(a).rows === this.layer(b).rows && this.layer(a).cols === this.layer(b).cols;
    if (!sameSize(before.left, this.state.left)) Object.assign(this.state, { view: null, focus: null });
    this.message.textContent = "";
    this.render();
  }

  private render(): void {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.paint();
    });
  }

  private paint(): void {
    const { state } = this;
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.root.lang = language();
    const ink = this.ink();
    this.drawTools();
    const shownMaps: { a: HeadRef; b: HeadRef | null; name: string }[] = [{ a: state.left, b: null, name: this.nameOf(state.left) }];
    if (state.right) {
      shownMaps.push({ a: state.right, b: null, name: this.nameOf(state.right) });
      if (state.difference && this.comparable()) shownMaps.push({ a: state.left, b: state.right, name: t("differenceIs") });
    }
    this.arrange(shownMaps);
    const cursor = this.probe && { i0: this.probe.i0, i1: this.probe.i1, j0: this.probe.j0, j1: this.probe.j1 };
    shownMaps.forEach(({ a, b }, n) =>
      this.maps[n].show({
        a,
        b,
        record: this.record(a),
        layer: this.layer(a),
        hide: state.hide,
        look: this.lookOf(a),
        ink,
        focus: state.focus,
        cursor,
        found: a.record === state.left.record ? this.hits : { rows: [], cols: [] },
        view: this.view(),
      }),
    );
    this.grid.show({
      record: this.record(),
      at: state.left.record,
      left: state.left,
      right: state.right,
      colourBy: state.colourBy,
      look: this.lookOf(),
      ink,
    });
    this.reading.show(
      { ref: state.left, record: this.record(), layer: this.layer(), hide: state.hide, look: this.lookOf(), focus: state.focus, topP: state.topP, view: this.maps[0].canvas.clientWidth ? this.maps[0].view() : this.view(), ink },
      state.panel,
    );
    this.overview();
    this.drawMini(ink.accent);
    this.drawColourBar(ink);
    this.drawCard();
    this.drawHits();
    try {
      history.replaceState(null, "", `#${toHash(state, this.start)}`);
    } catch {
      // A srcdoc frame has no address of its own.
    }
  }

  private nameOf(ref: HeadRef): string {
    const layer = this.layer(ref);
    const name = `${t("layer")} ${layer.index} · ${t("head")} ${layer.heads[ref.head]}`;
    return this.data.records.length > 1 ? `${this.record(ref).title} — ${name}` : name;
  }

  /** As many panels as maps, each square for a square matrix. */
  private arrange(shown: { name: string; a: HeadRef }[]): void {
    if (this.panels.children.length !== shown.length) {
      this.panels.replaceChildren(
        ...shown.map((_, n) => h("figure", {}, h("figcaption", {}), this.maps[n].canvas)),
      );
    }
    const style = getComputedStyle(this.board);
    const stacked = style.flexDirection === "column";
    const clientWidth = this.board.clientWidth - 2 * parseFloat(style.paddingLeft) - (stacked ? 0 : 224);
    const clientHeight = stacked ? clientWidth : this.board.clientHeight;
    shown.forEach(({ name, a }, n) => {
      const figure = this.panels.children[n] as HTMLElement;
      figure.querySelector("figcaption")!.textContent = name;
      figure.className = ["first", "other", "third"][n];
      const { rows, cols } = this.layer(a);
      const wide = (clientWidth - 12 * (shown.length - 1)) / shown.length;
      const tall = clientHeight - (shown.length > 1 ? 24 : 0);
      const ratio = Math.max(0.3, Math.min(2, cols / Math.max(rows, 1)));
      const plot = Math.min(wide - 126, (tall - 76) * ratio);
      const canvas = this.maps[n].canvas;
      canvas.style.width = `${Math.max(160, plot + 126)}px`;
      canvas.style.height = `${Math.max(140, plot / ratio + 76)}px`;
    });
  }

  /** The sweep over the whole matrix, and its progress; the minimap comes out of it. */
  private overview(): void {
    const { left, hide } = this.state;
    const key = `${keyOf(left)}/${hide}`;
    if (this.sweep === key) return;
    this.sweep = key;
    const wanted = (): boolean => this.sweep === key;
    const began = performance.now();
    const progress = (done: number): void => {
      if (!wanted()) return;
      this.progress.hidden = done >= 1 || performance.now() - began < 200;
      this.progress.value = done;
      if (!this.progress.hidden) this.message.textContent = t("computing", { n: Math.round(100 * done) });
    };
    this.source.overview(left, hide, progress, wanted).then(
      async () => {
        if (!wanted()) return;
        this.progress.hidden = true;
        this.message.textContent = "";
        this.mini = { key, planes: await this.source.thumbnail(left, MINI, wanted) };
        this.root.dataset.ready = key;
        this.render();
      },
      (error: unknown) => {
        if (this.sweep === key) {
          this.progress.hidden = true;
          if (!(error instanceof Stale)) this.fail(error instanceof Error ? error.message : String(error));
        }
      },
    );
  }

  private fail(why: string): void {
    this.message.textContent = t("failed", { why });
  }

  // --- what is done ------------------------------------------------------------------------------------------------

  private open(ref: HeadRef, beside: boolean): void {
    if (beside) this.set({ right: sameHead(ref, this.state.right) ? null : ref });
    else this.set({ left: ref });
  }

  private step(layers: number, heads: number): void {
    const { left } = this.state;
    const record = this.record();
    let { layer, head } = left;
    layer = (layer + layers + record.layers.length) % record.layers.length;
    head += heads;
    if (head < 0) {
      layer = (layer - 1 + record.layers.length) % record.layers.length;
      head = record.layers[layer].heads.length - 1;
    } else if (head >= record.layers[layer].heads.length) {
      head = layers ? record.layers[layer].heads.length - 1 : 0;
      if (!layers) layer = (layer + 1) % record.layers.length;
    }
    this.set({ left: { record: left.record, layer, head } });
  }

  private compare(): void {
    const { left, right, difference } = this.state;
    if (!right) {
      const other = this.data.records.length > 1 ? { ...left, record: (left.record + 1) % this.data.records.length } : null;
      const fits = other && this.data.records[other.record].layers[other.layer]?.heads[other.head] !== undefined;
      const heads = this.layer().heads.length;
      this.set({ right: fits ? other : { ...left, head: (left.head + 1) % heads }, difference: false });
    } else if (!difference && this.comparable()) this.set({ difference: true });
    else this.set({ right: null, difference: false });
  }

  private centre(row: number, col: number): void {
    const { x0, x1, y0, y1 } = this.view();
    const [w, l] = [(x1 - x0) / 2, (y1 - y0) / 2];
    this.maps[0].go({ x0: col - w, x1: col + w, y0: row - l, y1: row + l });
  }

  private matches(text: string): { rows: number[]; cols: number[]; at: number } {
    const record = this.record();
    const layer = this.layer();
    const cols = search(record.tokens ?? [], text).filter((j) => j < layer.cols);
    const rows = record.queryTokens
      ? search(record.queryTokens, text)
      : cols.map((j) => j - layer.ahead).filter((i) => i >= 0 && i < layer.rows);
    return { rows, cols, at: -1 };
  }

  private look(text: string): void {
    this.hits = this.matches(text);
    this.set({ find: text });
  }

  private nextHit(step: number): void {
    const { hits } = this;
    if (!hits.cols.length) return;
    hits.at = (hits.at + step + hits.cols.length) % hits.cols.length;
    const col = hits.cols[hits.at];
    const layer = this.layer();
    const row = Math.max(0, Math.min(layer.rows - 1, col - layer.ahead));
    const now = this.view();
    this.state.focus = { axis: "query", from: row, to: row };
    this.maps[0].go(around(now, row, col, Math.min(now.x1 - now.x0, 48)));
  }

  private probed(probe: Probe | null): void {
    this.probe = probe;
    this.live.textContent = probe ? MapCanvas.words(probe) : "";
    this.render();
  }

  /** Move the cursor by single cells, for those without a mouse. */
  private walk(di: number, dj: number): void {
    const map = this.maps[0];
    const view = map.view();
    const { rows, cols } = this.layer();
    const now = this.probe ?? { i0: Math.floor((view.y0 + view.y1) / 2), j0: Math.floor((view.x0 + view.x1) / 2), i1: 0, j1: 0 };
    const i = di > 0 ? Math.max(now.i1, now.i0 + 1) : now.i0 + di;
    const j = dj > 0 ? Math.max(now.j1, now.j0 + 1) : now.j0 + dj;
    const [row, col] = [Math.max(0, Math.min(rows - 1, i)), Math.max(0, Math.min(cols - 1, j))];
    if (row < view.y0 || row >= view.y1 || col < view.x0 || col >= view.x1) this.centre(row, col);
    this.probed(map.probeAt(row, col));
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || this.dialog.open) return;
    const target = event.target as HTMLElement;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    const map = this.maps[0];
    const { state } = this;
    const plot = map.plot();
    const arrows: Record<string, [number, number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const arrow = arrows[event.key];
    if (arrow && target.closest(".text")) return;
    if (arrow && event.shiftKey) this.walk(arrow[0], arrow[1]);
    else if (arrow) map.pan((-arrow[1] * plot.width) / 6, (-arrow[0] * plot.height) / 6);
    else if (event.key === "+" || event.key === "=") map.zoom(0.6);
    else if (event.key === "-" || event.key === "_") map.zoom(1 / 0.6);
    else if (event.key === "0") map.fit();
    else if (event.key === "[") this.step(0, -1);
    else if (event.key === "]") this.step(0, 1);
    else if (event.key === "{") this.step(-1, 0);
    else if (event.key === "}") this.step(1, 0);
    else if (event.key === "Enter" && this.probe && target.tagName === "CANVAS") {
      this.set({ focus: { axis: "query", from: this.probe.i0, to: this.probe.i1 - 1 } });
    } else if (event.key === "Escape") this.set({ focus: null });
    else if (event.key === "/") this.find.focus();
    else if (event.key === "?") this.showHelp();
    else if (/^s$/i.test(event.key)) this.set({ scale: ({ log: "linear", linear: "uniform", uniform: "log" } as const)[state.scale] });
    else if (/^p$/i.test(event.key)) this.set({ pooling: state.pooling === "max" ? "mass" : "max" });
    else if (/^h$/i.test(event.key)) this.set({ hide: state.hide ? 0 : 1 });
    else if (/^d$/i.test(event.key)) this.compare();
    else if (/^t$/i.test(event.key)) this.set({ panel: state.panel === "text" ? "lines" : "text" });
    else return;
    event.preventDefault();
  }

  // --- the furniture -----------------------------------------------------------------------------------------------

  private build(): void {
    const main = h(
      "section",
      { class: "stage" },
      this.tools,
      this.board,
      h("div", { class: "status" }, this.progress, this.message),
      h("section", { class: "reading" }, this.tabs, this.reading.text, h("div", { class: "lines-box" }, this.reading.lines), this.reading.table),
    );
    this.progress.hidden = true;
    const inspector = h("div", { class: "inspector" }, this.minimap.canvas, this.colourBar, this.nearby, this.card);
    this.board.append(this.panels, inspector);
    this.root.replaceChildren(this.header, h("div", { class: "body" }, this.side, main), this.live, this.dialog);
    this.furnish();
  }

  /** Everything with words in it; again when the language changes. */
  private furnish(): void {
    const record = this.data.records[0];
    const layers = record.layers;
    const heads = Math.max(...layers.map((l) => l.heads.length));
    const largest = layers.reduce((a, b) => (b.cols > a.cols ? b : a));
    const size =
      largest.rows === largest.cols
        ? t("tokens", { n: count(largest.cols) })
        : t("queriesKeys", { rows: count(largest.rows), cols: count(largest.cols) });
    this.find.placeholder = t("search");
    this.find.setAttribute("aria-label", t("search"));
    const other = this.data.records.slice(1).map((r) => r.title);
    this.header.replaceChildren(
      h("h1", {}, [record.title, ...other].map((title) => quoted(title, 80)).join(" / ")),
      h("span", { class: "facts" }, `${t("layersHeads", { layers: layers.length, heads })} · ${size}`),
      h("span", { class: "spring" }),
      h("label", { class: "finder" }, icon(ICONS.search) as unknown as Node, this.find, this.hitsNote),
      button("link", t("link"), () => this.copyLink()),
      button("picture", t("picture"), () => this.savePicture()),
      button("theme", t("theme"), () => {
        this.dark = !this.dark;
        remember("theme", this.dark ? "dark" : "light");
        this.render();
      }),
      h(
        "button",
        {
          type: "button",
          class: "labelled",
          lang: language() === "en" ? "zh-Hant" : "en",
          onclick: () => {
            setLanguage(language() === "en" ? "zh-Hant" : "en");
            remember("language", language());
            this.furnish();
            this.render();
          },
        },
        t("language"),
      ),
      button("help", t("help"), () => this.showHelp()),
    );
    const select = h("select", { "aria-label": t("colourBy"), onchange: (event) => this.set({ colourBy: (event.target as HTMLSelectElement).value }) });
    for (const name of Object.keys(record.scores)) select.append(h("option", { value: name }, name.replace(/_/g, " ")));
    select.append(h("option", { value: "" }, t("pictures")));
    select.value = this.state.colourBy;
    this.side.replaceChildren(
      h("div", { class: "row" }, h("h2", {}, t("heads")), h("label", {}, h("span", { class: "faint" }, t("colourBy")), select)),
      h("div", { class: "scroller" }, this.grid.canvas),
      this.grid.note,
      this.colophon(),
    );
  }

  private colophon(): HTMLElement {
    const facts = this.data.records.flatMap((record) =>
      Object.entries(record.facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, quoted(value, 200)))),
    );
    const deviation = Math.max(0, ...this.data.records.map((r) => r.deviation ?? 0));
    const promise = this.data.server ? t("exactServed") : t("exact", { x: number(deviation) });
    return h("footer", { class: "colophon" }, h("p", {}, promise), h("details", {}, h("summary", {}, t("about")), h("p", {}, t("caution")), h("dl", {}, ...facts)));
  }

  private drawTools(): void {
    const { state } = this;
    const layer = this.layer();
    const focused = document.activeElement;
    const keep = focused instanceof HTMLElement && (this.tools.contains(focused) || this.nearby.contains(focused)) ? focused.dataset.keep ?? focused.closest<HTMLElement>(".choice")?.getAttribute("aria-label") : null;
    const view = this.view();
    const contrast = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: state.contrast, "aria-label": t("contrast"), "data-keep": "contrast", oninput: (e) => this.set({ contrast: Number((e.target as HTMLInputElement).value) }) });
    const bound = (name: string, value: number, set: (n: number) => void): HTMLInputElement =>
      h("input", { type: "number", min: 0, max: layer.rows - 1, value, "aria-label": name, "data-keep": name, onchange: (e) => set(Number((e.target as HTMLInputElement).value)) });
    const rows = (from: number, to: number): void => {
      const [a, b] = [Math.max(0, Math.min(from, to)), Math.min(layer.rows - 1, Math.max(from, to))];
      this.set({ focus: { axis: "query", from: a, to: b } as Focus });
      const high = Math.max(b + 1 - a, 1);
      const wide = ((view.x1 - view.x0) / (view.y1 - view.y0)) * high;
      const middle = Math.min(layer.cols, (a + b) / 2 + layer.ahead);
      this.maps[0].go({ y0: a, y1: b + 1, x0: middle - wide / 2, x1: middle + wide / 2 });
    };
    const palette = h("select", { "aria-label": t("palette"), title: t("palette"), "data-keep": "palette", onchange: (e) => this.set({ palette: (e.target as HTMLSelectElement).value as Palette }) });
    for (const name of ["auto", "ember", "ink", "viridis", "cividis", "grey"]) palette.append(h("option", { value: name }, name));
    palette.value = state.palette;
    // A slider that is being dragged must stay; it alone changes without new furniture.
    if (keep === "contrast" && this.tools.querySelector("input:active")) return;
    this.tools.replaceChildren(
      h(
        "span",
        { class: "group title" },
        button("left", `${t("head")} −`, () => this.step(0, -1)),
        h("strong", {}, `${t("layer")} ${layer.index} · ${t("head")} ${layer.heads[state.left.head]}`),
        button("right", `${t("head")} +`, () => this.step(0, 1)),
      ),
      choice(t("scaleHelp"), t("scaleHelp"), [["log", t("scaleLog")], ["linear", t("scaleLinear")], ["uniform", t("scaleUniform")]], state.scale, (scale) => this.set({ scale })),
      choice(t("poolHelp"), t("poolHelp"), [["max", t("poolMax")], ["mass", t("poolMass")]], state.pooling, (pooling) => this.set({ pooling })),
      h("span", { class: "group" }, h("span", { class: "faint" }, t("hideSink")), choice(t("hideSink"), t("hideHelp"), [[0, t("hideNone")], [1, "1"], [4, "4"]], state.hide, (hide) => this.set({ hide }))),
      h("label", { class: "group" }, h("span", { class: "faint" }, t("contrast")), contrast),
      button("compare", t("compare"), () => this.compare(), state.right ? (state.difference || !this.comparable() ? t("onlyOne") : t("difference")) : t("compare")),
    );
    this.nearby.replaceChildren(
      h("span", { class: "group" }, button("minus", t("zoomOut"), () => this.maps[0].zoom(1 / 0.6)), button("fit", t("fit"), () => this.maps[0].fit()), button("plus", t("zoomIn"), () => this.maps[0].zoom(0.6))),
      palette,
      h("span", { class: "group" }, h("span", { class: "faint" }, t("rows")), bound(t("rows"), Math.max(0, Math.floor(view.y0)), (n) => rows(n, Math.ceil(view.y1) - 1)), h("span", { class: "faint" }, "–"), bound(t("to"), Math.min(layer.rows, Math.ceil(view.y1)) - 1, (n) => rows(Math.floor(view.y0), n))),
    );
    if (keep) {
      const again = [...this.tools.querySelectorAll<HTMLElement>("[data-keep]"), ...this.nearby.querySelectorAll<HTMLElement>("[data-keep]")].find((e) => e.dataset.keep === keep);
      const group = [...this.tools.querySelectorAll<HTMLElement>(".choice")].find((e) => e.getAttribute("aria-label") === keep);
      (again ?? group?.querySelector<HTMLElement>("[aria-checked=true]"))?.focus();
    }
    const p = h("input", { type: "range", min: 0.05, max: 1, step: 0.01, value: state.topP, "aria-label": t("topP"), oninput: (e) => this.set({ topP: Number((e.target as HTMLInputElement).value) }) });
    if (this.tabs.querySelector("input:active")) {
      this.tabs.querySelector("output")!.textContent = state.topP.toFixed(2);
      return;
    }
    const focus = state.focus;
    const turn = (axis: "query" | "key"): void => {
      if (!focus || focus.axis === axis) return;
      if (axis === "key") this.set({ focus: { axis, at: Math.max(0, Math.min(layer.cols - 1, (focus as { to: number }).to + layer.ahead)) } });
      else {
        const row = Math.max(0, Math.min(layer.rows - 1, (focus as { at: number }).at - layer.ahead));
        this.set({ focus: { axis, from: row, to: row } });
      }
    };
    this.tabs.replaceChildren(
      choice(t("text"), "", [["text", t("text")], ["lines", t("lines")]], state.panel, (panel) => this.set({ panel })),
      choice(t("query"), "", [["query", t("reads")], ["key", t("readBy")]], focus?.axis ?? "query", turn),
      h("label", { class: "group", title: t("topPHelp") }, h("span", { class: "faint" }, t("topP")), p, h("output", {}, state.topP.toFixed(2))),
      this.reading.caption,
    );
  }

  private drawMini(accent: string): void {
    const { left, hide } = this.state;
    const key = `${keyOf(left)}/${hide}`;
    this.minimap.show({
      planes: this.mini?.key === key ? this.mini.planes : null,
      layer: this.layer(),
      view: this.maps[0].canvas.clientWidth ? this.maps[0].view() : this.view(),
      look: { ...this.lookOf(), pooling: "max" },
      accent,
      found: this.hits,
    });
  }

  private drawColourBar(ink: { text: string; faint: string; font: string }): void {
    const canvas = this.colourBar;
    const wide = canvas.clientWidth;
    if (!wide) return;
    const look = this.lookOf();
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(wide * dense);
    canvas.height = Math.round(36 * dense);
    const ctx = canvas.getContext("2d")!;
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    const colours = shades(look.palette);
    for (let x = 0; x < wide; x++) {
      ctx.fillStyle = css(colours[Math.round((x / (wide - 1)) * (colours.length - 1))]);
      ctx.fillRect(x, 0, 1, 12);
    }
    const [low, high] = ends(look);
    canvas.setAttribute("aria-label", `${number(low)} – ${number(high)}`);
    ctx.font = `10px ${ink.font}`;
    ctx.fillStyle = ink.faint;
    ctx.textBaseline = "top";
    const times = look.scale === "uniform" ? "×" : "";
    const at = (x: number, value: number, align: CanvasTextAlign): void => {
      ctx.textAlign = align;
      ctx.fillText(`${number(Number(value.toPrecision(2)))}${times}`, x, 18);
    };
    at(0, low, "left");
    at(wide / 2, look.scale === "linear" ? high / 2 : Math.sqrt(low * high), "center");
    at(wide, high, "right");
  }

  private drawCard(): void {
    const { probe, state } = this;
    const layer = this.layer();
    const record = this.record();
    const { why, baked } = layer;
    const lines: HTMLElement[] = [];
    if (probe) {
      const span = (a: number, b: number): string => (b - a === 1 ? count(a) : `${count(a)}–${count(b - 1)}`);
      const one = probe.i1 - probe.i0 === 1 && probe.j1 - probe.j0 === 1;
      const token = (word: string | null, single: boolean): HTMLElement | null => (single && word !== null ? h("bdi", { class: "token" }, quoted(word, 40)) : null);
      const rowsSingle = probe.i1 - probe.i0 === 1;
      const colsSingle = probe.j1 - probe.j0 === 1;
      const values = (of: Probe["values"]): HTMLElement[] => {
        if (!of) return [h("div", { class: "value" }, "…")];
        if (!(of.uniform > 0)) return [h("div", { class: "faint" }, state.hide && probe.j0 < state.hide ? t("hiddenSink") : t("hidden"))];
        if (one) return [h("div", { class: "value" }, number(of.max)), h("div", { class: "faint" }, t("timesUniform", { x: number(Number(of.lift.toPrecision(3))) }))];
        return [
          h("div", { class: "value" }, number(state.pooling === "max" ? of.max : of.mass)),
          h("div", { class: "faint" }, `${t("largest")} ${number(of.max)} · ${t("mass")} ${number(of.mass)} · ${t("timesUniform", { x: number(Number((of.mass / of.uniform).toPrecision(3))) })}`),
        ];
      };
      lines.push(...values(probe.values));
      if (state.right && probe.other) lines.push(...values(probe.other));
      lines.push(
        h("div", { class: "pair" }, h("span", { class: "faint" }, `${rowsSingle ? t("query") : t("queries")} ${span(probe.i0, probe.i1)}`), token(queryToken(record, layer, probe.i0), rowsSingle)),
        h("div", { class: "pair" }, h("span", { class: "faint" }, `${colsSingle ? t("key") : t("keys")} ${span(probe.j0, probe.j1)}`), token(keyToken(record, probe.j0), colsSingle)),
      );
    }
    if (baked && why) {
      const n = count(2 ** baked.level);
      lines.push(h("p", { class: "note" }, baked.level ? t("baked", { why, n }) : t("bakedExact", { why })));
    }
    this.card.replaceChildren(...lines);
  }

  private drawHits(): void {
    const { cols, at } = this.hits;
    this.hitsNote.textContent = !this.state.find ? "" : cols.length ? t("found", { n: at + 1 || "–", all: cols.length }) : t("nothing");
  }

  private copyLink(): void {
    const link = location.href;
    const done = (): void => {
      this.message.textContent = t("copied");
    };
    if (navigator.clipboard) navigator.clipboard.writeText(link).then(done, () => this.fail(link));
    else this.message.textContent = link;
  }

  private savePicture(): void {
    this.maps[0].canvas.toBlob((blob) => {
      if (!blob) return;
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: `attention-${this.layer().index}-${this.layer().heads[this.state.left.head]}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }

  private showHelp(): void {
    const rows = keysHelp().map(([keys, what]) => h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, what)));
    this.dialog.replaceChildren(
      h("div", { class: "row" }, h("h2", {}, t("help")), button("close", t("close"), () => this.dialog.close())),
      h("table", {}, h("tbody", {}, ...rows)),
    );
    this.dialog.showModal();
  }
}
