// One map, two side by side, or two and their difference: as large as the board allows.

import { h } from "./dom";
import { t } from "./i18n";
import { MapCanvas, type MapEvents } from "./map";
import type { HeadRef } from "./payload";
import { layerOf, lookOf, nameOf, recordOf, type Scene } from "./scene";
import { NO_HITS } from "./search";
import type { Source } from "./source";

const CAPTION = 24;
const GAP = 12;

interface Shown {
  a: HeadRef;
  b: HeadRef | null;
  name: string;
}

function shownIn({ data, state, comparable }: Scene): Shown[] {
  const { left, right, difference } = state;
  const all: Shown[] = [{ a: left, b: null, name: nameOf(data, left) }];
  if (!right) return all;
  all.push({ a: right, b: null, name: nameOf(data, right) });
  if (difference && comparable) all.push({ a: left, b: right, name: t("differenceIs") });
  return all;
}

export class Panels {
  readonly element = h("div", { class: "panels" });
  readonly maps: MapCanvas[];
  private shown: Shown[] = [];

  constructor(source: Source, events: MapEvents) {
    this.maps = [0, 1, 2].map(() => new MapCanvas(source, events));
  }

  /** The map that keys and buttons move. */
  get first(): MapCanvas {
    return this.maps[0];
  }

  /** The maps on the screen, with their names. */
  get visible(): { map: MapCanvas; name: string }[] {
    return this.shown.map(({ name }, n) => ({ map: this.maps[n], name }));
  }

  show(scene: Scene): void {
    const { data, state, probe } = scene;
    this.shown = shownIn(scene);
    this.arrange(scene);
    const cursor = probe && { i0: probe.i0, i1: probe.i1, j0: probe.j0, j1: probe.j1 };
    this.shown.forEach(({ a, b, name }, n) =>
      this.maps[n].show({
        a,
        b,
        name,
        record: recordOf(data, a),
        layer: layerOf(data, a),
        hide: state.hide,
        look: lookOf(data, state, a, scene.look.dark),
        ink: scene.ink,
        focus: state.focus,
        cursor,
        found: a.record === state.left.record ? scene.hits : NO_HITS,
        view: scene.view,
      }),
    );
  }

  /** In as many columns as make the maps largest, each square for a square matrix. */
  private arrange(scene: Scene): void {
    const count = this.shown.length;
    if (this.element.children.length !== count) {
      this.element.replaceChildren(...this.shown.map((_, n) => h("figure", {}, h("figcaption", {}), this.maps[n].canvas)));
    }
    const { clientWidth, clientHeight } = this.element;
    const { rows, cols } = layerOf(scene.data, scene.state.left);
    const ratio = Math.max(0.3, Math.min(2, cols / Math.max(rows, 1)));
    const caption = count > 1 ? CAPTION : 0;
    const [across, down] = this.first.margins(count > 1);
    let best = { plot: 0, columns: 1 };
    for (let columns = 1; columns <= count; columns++) {
      const lines = Math.ceil(count / columns);
      const wide = (clientWidth - GAP * (columns - 1)) / columns - across;
      const tall = (clientHeight - GAP * (lines - 1)) / lines - down - caption;
      const plot = Math.min(wide, tall * ratio);
      if (plot > best.plot) best = { plot, columns };
    }
    this.element.style.gridTemplateColumns = `repeat(${best.columns}, max-content)`;
    this.shown.forEach(({ name }, n) => {
      const figure = this.element.children[n] as HTMLElement;
      figure.firstElementChild!.textContent = name;
      figure.className = ["first", "other", "third"][n];
      const { canvas } = this.maps[n];
      this.maps[n].small = count > 1;
      canvas.style.width = `${Math.max(120, Math.floor(best.plot)) + across}px`;
      canvas.style.height = `${Math.max(100, Math.floor(best.plot / ratio)) + down}px`;
    });
  }
}
