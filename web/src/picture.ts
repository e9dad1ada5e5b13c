// The maps on the screen as one picture, with what they are and what their colours mean.

import { h } from "./dom";
import { BAR_HEIGHT, drawBar } from "./legend";
import type { MapCanvas } from "./map";
import { nameOf, type Scene } from "./scene";
import { count, t } from "./i18n";
import { quoted } from "./tokens";

const EDGE = 24;
const TITLE = 44;
const CAPTION = 26;
const GAP = 12;
const BAR = 220;
/** Pixels of the picture for one of the page, at least. */
const DENSITY = 2;

export function pictureOf(scene: Scene, shown: { map: MapCanvas; name: string }[]): HTMLCanvasElement {
  const { ink, state, data, layer, record, look } = scene;
  const dense = Math.max(DENSITY, window.devicePixelRatio || 1);
  const maps = shown.map(({ map, name }) => ({ name, image: map.picture(dense), wide: map.canvas.clientWidth, tall: map.canvas.clientHeight }));
  const caption = maps.length > 1 ? CAPTION : 0;
  const wide = Math.max(maps.reduce((sum, map) => sum + map.wide, 0) + GAP * (maps.length - 1), 2 * BAR + 40) + 2 * EDGE;
  const tall = 2 * EDGE + TITLE + caption + Math.max(...maps.map((map) => map.tall)) + 10 + BAR_HEIGHT;
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(wide * dense);
  canvas.height = Math.round(tall * dense);
  const ctx = canvas.getContext("2d")!;
  ctx.scale(dense, dense);
  ctx.fillStyle = ink.panel;
  ctx.fillRect(0, 0, wide, tall);
  ctx.textBaseline = "middle";
  ctx.fillStyle = ink.text;
  ctx.font = `650 16px ${ink.font}`;
  const single = maps.length === 1 && data.records.length === 1;
  ctx.fillText(single ? `${quoted(record.title, 60)} · ${nameOf(data, state.left)}` : quoted(record.title, 80), EDGE, EDGE + 8);
  ctx.fillStyle = ink.faint;
  ctx.font = `12px ${ink.font}`;
  const scale = { log: t("scaleLog"), linear: t("scaleLinear"), uniform: t("scaleUniform") }[state.scale];
  const hidden = state.hide ? ` · ${t("hideSink")} ${state.hide}` : "";
  ctx.fillText(`${t("queriesKeys", { rows: count(layer.rows), cols: count(layer.cols) })} · ${scale} · ${t(state.pooling === "max" ? "poolMax" : "poolMass")}${hidden}`, EDGE, EDGE + 28);
  let x = EDGE;
  const top = EDGE + TITLE + caption;
  for (const { name, image, wide: across, tall: down } of maps) {
    if (caption) {
      ctx.fillStyle = ink.text;
      ctx.font = `600 12.5px ${ink.font}`;
      ctx.fillText(name, x + 8, top - CAPTION / 2);
    }
    ctx.drawImage(image, x, top, across, down);
    x += across + GAP;
  }
  const bottom = tall - EDGE - BAR_HEIGHT + 4;
  drawBar(ctx, EDGE, bottom, BAR, look, ink, false);
  if (maps.length === 3) drawBar(ctx, EDGE + BAR + 40, bottom, BAR, look, ink, true);
  return canvas;
}

function asPng(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no picture"))), "image/png");
  });
}

/** Onto the clipboard; into a file where the browser forbids that. Returns what to say. */
export async function copyPicture(canvas: HTMLCanvasElement, name: string): Promise<string> {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": asPng(canvas) })]);
    return t("pictureCopied");
  } catch {
    return savePicture(canvas, name);
  }
}

export async function savePicture(canvas: HTMLCanvasElement, name: string): Promise<string> {
  const url = URL.createObjectURL(await asPng(canvas));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  return t("pictureSaved", { name });
}
