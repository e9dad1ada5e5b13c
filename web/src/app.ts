// The page: a state, the parts that show it, and what they ask for.

import { Address } from "./address";
import { Card } from "./card";
import { h } from "./dom";
import { tellingRow, type Fact, type Top } from "./facts";
import { Grid } from "./grid";
import { Header } from "./header";
import { Help } from "./help";
import { Hint } from "./hint";
import { language, preferredLanguage, said, setLanguage, t, type Language } from "./i18n";
import { obeyKeys, type Commands } from "./keyboard";
import { Legend } from "./legend";
import type { MapCanvas, Probe } from "./map";
import { Minimap } from "./minimap";
import { Motion } from "./motion";
import { compared, opened, stepped, turned } from "./moves";
import { Overview } from "./overview";
import { Panels } from "./panels";
import type { PageData } from "./payload";
import { copyPicture, pictureOf, savePicture } from "./picture";
import { remember, remembered } from "./preferences";
import { Reading } from "./reading";
import { RowRange } from "./rows";
import { inkOf, layerOf, lookOf, recordOf, type Scene } from "./scene";
import { hitsOf, NO_HITS, type Hits } from "./search";
import { Sidebar } from "./sidebar";
import type { Source } from "./source";
import { initialState, type Focus, type State, type View } from "./state";
import { Toolbar } from "./toolbar";
import { around, whole } from "./view";

export class App implements Commands {
  state: State;
  private dark: boolean;
  private probe: Probe | null = null;
  private hits: Hits = NO_HITS;
  private queued = false;

  private readonly address: Address;
  private readonly motion = new Motion((view) => this.set({ view }, false));
  private readonly panels: Panels;
  private readonly header: Header;
  private readonly sidebar: Sidebar;
  private readonly toolbar: Toolbar;
  private readonly minimap: Minimap;
  private readonly legend: Legend;
  private readonly reading: Reading;
  private readonly rows: RowRange;
  private readonly overview: Overview;
  private readonly hint: Hint;
  private readonly card = new Card();
  private readonly help = new Help();
  private readonly progress = h("progress", { max: 1, value: 0, hidden: true });
  private readonly message = h("div", { class: "message", role: "status" });
  private readonly live = h("div", { class: "unseen", "aria-live": "polite" });

  constructor(
    private readonly root: HTMLElement,
    private readonly data: PageData,
    readonly source: Source,
  ) {
    this.state = initialState(data);
    this.address = new Address(this.state, data, () => this.state, (state) => this.follow(state));
    this.state = this.address.read();
    const theme = remembered("theme");
    this.dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    setLanguage((remembered("language") as Language | null) ?? preferredLanguage());
    this.hint = new Hint();
    const failed = (why: string): void => this.fail(why);
    const choose = (focus: Focus): void => this.set({ focus });
    this.panels = new Panels(source, {
      view: (view) => this.moved(view),
      glide: (view) => this.glide(view),
      probe: (probe) => this.probed(probe),
      focus: choose,
      failed,
    });
    this.header = new Header(data, {
      find: (text) => this.look(text),
      nextHit: (step) => this.nextHit(step),
      copyLink: () => this.copyLink(),
      copyPicture: () => void this.keepPicture(copyPicture),
      savePicture: () => void this.keepPicture(savePicture),
      theme: () => this.turnTheme(),
      language: () => this.turnLanguage(),
      help: () => this.showHelp(),
    });
    this.toolbar = new Toolbar({
      step: (layers, heads) => this.step(layers, heads),
      zoom: (factor) => this.zoom(factor),
      fit: () => this.fit(),
      scale: (scale) => this.set({ scale }),
      pooling: (pooling) => this.set({ pooling }),
      hide: (hide) => this.set({ hide }),
      compare: () => this.compare(),
    });
    const grid = new Grid(source, (ref, beside) => this.set(opened(this.state, ref, beside)));
    this.sidebar = new Sidebar(data, grid, { colourBy: (colourBy) => this.set({ colourBy }), fact: (fact, top) => void this.show(fact, top) });
    this.minimap = new Minimap((row, col) => this.centre(row, col));
    this.legend = new Legend({ contrast: (contrast) => this.set({ contrast }), palette: (palette) => this.set({ palette }) });
    this.rows = new RowRange((focus) => this.chooseRows(focus));
    this.reading = new Reading(source, {
      choose,
      panel: (panel) => this.set({ panel }),
      turn: (axis) => this.set(turned(data, this.state, axis)),
      topP: (topP) => this.set({ topP }),
      failed,
    });
    this.overview = new Overview(source, {
      progress: (done) => this.waiting(done),
      ready: (key) => {
        this.root.dataset.ready = key;
        this.render();
      },
      failed,
    });
    this.build();
    this.hits = this.matches(this.state.find);
    obeyKeys(this, () => this.help.element.open);
    new ResizeObserver(() => this.render()).observe(this.panels.element);
    if (!location.hash) void this.tell();
    this.render();
  }

  get maps(): MapCanvas[] {
    return this.panels.maps;
  }

  // --- from state to screen ----------------------------------------------------------------------------------------

  private build(): void {
    const inspector = h("section", { class: "inspector" }, this.minimap.canvas, this.card.element, this.legend.element, this.rows.element);
    const board = h("div", { class: "board" }, this.panels.element, this.hint.element, h("div", { class: "status" }, this.progress, this.message));
    const right = h("div", { class: "right" }, inspector, this.reading.element);
    const stage = h("section", { class: "stage" }, this.toolbar.element, h("div", { class: "desk" }, board, right));
    this.root.replaceChildren(this.header.element, h("div", { class: "body" }, this.sidebar.element, stage), this.live, this.help.element);
  }

  set(change: Partial<State>, still = true): void {
    const before = layerOf(this.data, this.state.left);
    if (still) this.motion.stop();
    this.state = { ...this.state, ...change };
    const layer = layerOf(this.data, this.state.left);
    if (before.rows !== layer.rows || before.cols !== layer.cols) Object.assign(this.state, { view: null, focus: null });
    this.message.textContent = "";
    this.render();
  }

  render(): void {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.paint();
    });
  }

  private get comparable(): boolean {
    const { left, right } = this.state;
    if (!right) return false;
    const [a, b] = [layerOf(this.data, left), layerOf(this.data, right)];
    return a.rows === b.rows && a.cols === b.cols && this.source.finest(left) === this.source.finest(right);
  }

  private scene(): Scene {
    const { data, state, probe, hits } = this;
    return {
      data,
      state,
      record: recordOf(data, state.left),
      layer: layerOf(data, state.left),
      look: lookOf(data, state, state.left, this.dark),
      ink: inkOf(this.root),
      view: state.view ?? whole(layerOf(data, state.left)),
      probe,
      hits,
      comparable: this.comparable,
    };
  }

  private paint(): void {
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.root.lang = document.documentElement.lang = language();
    this.overview.want(this.state.left, this.state.hide);
    const scene = this.scene();
    this.panels.show(scene);
    // From here on the view is what the map can show of it.
    scene.view = this.panels.first.view();
    this.header.show(scene);
    this.toolbar.show(scene);
    this.sidebar.show(scene);
    this.card.show(scene);
    this.legend.show(scene);
    this.rows.show(scene);
    this.reading.show(scene);
    this.minimap.show({ planes: this.overview.planes, layer: scene.layer, view: scene.view, look: { ...scene.look, pooling: "max" }, ink: scene.ink, found: this.hits });
    this.address.follow();
  }

  private furnish(): void {
    for (const part of [this.header, this.toolbar, this.sidebar, this.legend, this.rows, this.reading, this.hint]) part.furnish();
    this.render();
  }

  private waiting(done: number | null): void {
    this.progress.hidden = done === null;
    this.progress.value = done ?? 1;
    this.message.textContent = done === null ? "" : t("computing", { n: Math.round(100 * done) });
  }

  private fail(why: string): void {
    this.message.textContent = t("failed", { why: said(why) });
  }

  // --- links -------------------------------------------------------------------------------------------------------

  private follow(state: State): void {
    this.motion.stop();
    this.state = state;
    this.hits = this.matches(state.find);
    this.render();
  }

  private copyLink(): void {
    this.address.follow(true);
    const link = location.href;
    navigator.clipboard.writeText(link).then(
      () => (this.message.textContent = t("copied")),
      () => (this.message.textContent = link),
    );
  }

  // --- pictures ----------------------------------------------------------------------------------------------------

  private async keepPicture(how: typeof copyPicture): Promise<void> {
    const { left } = this.state;
    const layer = layerOf(this.data, left);
    const name = `attention-${layer.index}-${layer.heads[left.head]}.png`;
    try {
      this.message.textContent = await how(pictureOf(this.scene(), this.panels.visible), name);
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error));
    }
  }

  // --- moving ------------------------------------------------------------------------------------------------------

  private moved(view: View): void {
    this.hint.read();
    this.set({ view });
  }

  /** Go to a view smoothly. */
  private glide(view: View): void {
    this.motion.glide(this.panels.first.view(), this.panels.first.within(view));
  }

  /** What the next step starts from: the end of a glide that is under way. */
  private get aim(): View {
    return this.motion.goal ?? this.panels.first.view();
  }

  zoom(factor: number): void {
    const { x0, x1, y0, y1 } = this.aim;
    const [x, y, w, l] = [(x0 + x1) / 2, (y0 + y1) / 2, ((x1 - x0) / 2) * factor, ((y1 - y0) / 2) * factor];
    this.glide({ x0: x - w, x1: x + w, y0: y - l, y1: y + l });
  }

  shift(dx: number, dy: number): void {
    const { x0, x1, y0, y1 } = this.aim;
    const [x, y] = [(dx * (x1 - x0)) / 6, (dy * (y1 - y0)) / 6];
    this.glide({ x0: x0 + x, x1: x1 + x, y0: y0 + y, y1: y1 + y });
  }

  fit(): void {
    this.glide(whole(layerOf(this.data, this.state.left)));
  }

  private centre(row: number, col: number): void {
    const { x0, x1, y0, y1 } = this.panels.first.view();
    const [w, l] = [(x1 - x0) / 2, (y1 - y0) / 2];
    this.panels.first.go({ x0: col - w, x1: col + w, y0: row - l, y1: row + l });
  }

  /** Show these rows, and what they read. */
  private chooseRows(focus: Focus & { axis: "query" }): void {
    const { rows, cols, ahead } = layerOf(this.data, this.state.left);
    const [from, to] = [Math.max(0, Math.min(rows - 1, focus.from)), Math.max(0, Math.min(rows - 1, focus.to))];
    const view = this.panels.first.view();
    const wide = ((view.x1 - view.x0) / (view.y1 - view.y0)) * (to + 1 - from);
    const middle = Math.min(cols, (from + to) / 2 + ahead);
    this.set({ focus: { axis: "query", from, to } });
    this.glide({ y0: from, y1: to + 1, x0: middle - wide / 2, x1: middle + wide / 2 });
  }

  // --- heads -------------------------------------------------------------------------------------------------------

  step(layers: number, heads: number): void {
    this.set(stepped(this.data, this.state, layers, heads));
  }

  compare(): void {
    this.set(compared(this.data, this.state, this.comparable));
  }

  /** A head that shows a known pattern, at a query that shows it well. */
  private async show(fact: Fact, top: Top): Promise<void> {
    this.set({ left: top.ref, colourBy: fact.score, right: null, difference: false, hide: 0, view: null, focus: null });
    await this.tell();
  }

  private async tell(): Promise<void> {
    const { left, colourBy } = this.state;
    try {
      const row = await tellingRow(this.source, left, colourBy, recordOf(this.data, left), layerOf(this.data, left));
      const unchanged = this.state.left === left && this.state.colourBy === colourBy && this.state.focus === null;
      if (row !== null && unchanged) this.set({ focus: { axis: "query", from: row, to: row } }, false);
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error));
    }
  }

  // --- tokens and cells --------------------------------------------------------------------------------------------

  private matches(text: string): Hits {
    return hitsOf(recordOf(this.data, this.state.left), layerOf(this.data, this.state.left), text);
  }

  private look(text: string): void {
    this.hits = this.matches(text);
    this.set({ find: text });
  }

  private nextHit(step: number): void {
    const { hits } = this;
    if (!hits.cols.length) return;
    hits.at = hits.at < 0 && step < 0 ? hits.cols.length - 1 : (hits.at + step + hits.cols.length) % hits.cols.length;
    const col = hits.cols[hits.at];
    const layer = layerOf(this.data, this.state.left);
    const row = Math.max(0, Math.min(layer.rows - 1, col - layer.ahead));
    const now = this.aim;
    this.set({ focus: { axis: "query", from: row, to: row } });
    this.glide(around(now, row, col, Math.min(now.x1 - now.x0, 48)));
  }

  private probed(probe: Probe | null): void {
    const beside = probe && this.comparable && !probe.other ? this.panels.maps[1].probeAt(probe.i0, probe.j0) : null;
    this.probe = beside ? { ...probe!, other: beside.values } : probe;
    this.live.textContent = this.probe ? this.panels.first.words(this.probe) : "";
    this.render();
  }

  walk(di: number, dj: number): void {
    const map = this.panels.first;
    const view = map.view();
    const { rows, cols } = layerOf(this.data, this.state.left);
    const now = this.probe ?? { i0: Math.floor((view.y0 + view.y1) / 2), j0: Math.floor((view.x0 + view.x1) / 2), i1: 0, j1: 0 };
    const i = di > 0 ? Math.max(now.i1, now.i0 + 1) : now.i0 + di;
    const j = dj > 0 ? Math.max(now.j1, now.j0 + 1) : now.j0 + dj;
    const [row, col] = [Math.max(0, Math.min(rows - 1, i)), Math.max(0, Math.min(cols - 1, j))];
    if (row < view.y0 || row >= view.y1 || col < view.x0 || col >= view.x1) this.centre(row, col);
    this.probed(map.probeAt(row, col));
  }

  choose(): void {
    if (this.probe) this.set({ focus: { axis: "query", from: this.probe.i0, to: this.probe.i1 - 1 } });
  }

  find(): void {
    this.header.find.focus();
  }

  showHelp(): void {
    this.help.open();
  }

  // --- the page as a whole -----------------------------------------------------------------------------------------

  private turnTheme(): void {
    this.dark = !this.dark;
    remember("theme", this.dark ? "dark" : "light");
    this.render();
  }

  private turnLanguage(): void {
    setLanguage(language() === "en" ? "zh-Hant" : "en");
    remember("language", language());
    this.furnish();
    this.header.element.querySelector<HTMLElement>(".language")?.focus();
  }
}
