// Colour maps, scales from weights to colours, and the painting of tiles.

import type { Planes } from "./head";

export type Scale = "log" | "linear" | "uniform";
export type Pooling = "max" | "mass";
export type Palette = "auto" | "ember" | "ink" | "viridis" | "cividis" | "grey";

type Rgb = [number, number, number];

const ANCHORS: Record<Exclude<Palette, "auto"> | "difference" | "differenceLight", string[]> = {
  ember: ["#0b0a14", "#1d1147", "#51127c", "#832681", "#b73779", "#e75263", "#fc8961", "#fec488", "#fcfdbf"],
  ink: ["#fffdf7", "#dcebea", "#a3cfd6", "#64abc4", "#3880b0", "#2b5595", "#27306f", "#150d3a"],
  viridis: ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"],
  cividis: ["#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dfca57", "#fee838"],
  grey: ["#0c0c0c", "#fafafa"],
  difference: ["#7dd3fc", "#2f7fc1", "#1b3a5c", "#15171c", "#5c2a1b", "#c1552f", "#fdba74"],
  differenceLight: ["#12477d", "#4f93c4", "#bcd8e6", "#fffdf7", "#f3cfb8", "#cf6f3f", "#7d2f0b"],
};

const linear = (c: number): number => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const gamma = (c: number): number => (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055);

function oklab(hex: string): Rgb {
  const [r, g, b] = [1, 3, 5].map((n) => linear(parseInt(hex.slice(n, n + 2), 16) / 255));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function rgb([lightness, a, b]: Rgb): Rgb {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const out: Rgb = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return out.map((c) => Math.round(255 * gamma(Math.min(1, Math.max(0, c))))) as Rgb;
}

const SHADES = 512;
const made = new Map<string, Uint32Array>();

/** 512 colours as little-endian ABGR words, interpolated in OKLab. */
export function shades(name: keyof typeof ANCHORS): Uint32Array {
  const known = made.get(name);
  if (known) return known;
  const anchors = ANCHORS[name].map(oklab);
  const out = new Uint32Array(SHADES);
  for (let n = 0; n < SHADES; n++) {
    const t = (n / (SHADES - 1)) * (anchors.length - 1);
    const low = Math.min(Math.floor(t), anchors.length - 2);
    const mixed = [0, 1, 2].map((c) => anchors[low][c] + (t - low) * (anchors[low + 1][c] - anchors[low][c])) as Rgb;
    const [r, g, b] = rgb(mixed);
    out[n] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  made.set(name, out);
  return out;
}

export interface Look {
  scale: Scale;
  pooling: Pooling;
  /** 0 .. 1: how much the small weights are lifted. */
  contrast: number;
  palette: Exclude<Palette, "auto">;
  dark: boolean;
  /** Keys of the longest row: what the scales are fitted to. */
  keys: number;
}

/** The ends of a scale: the weights of the first and the last colour. */
export function ends(look: Look): [number, number] {
  if (look.scale === "log") return [Math.min(0.1, 10 ** (0.4 - 2.2 * look.contrast) / Math.max(look.keys, 2)), 1];
  if (look.scale === "linear") return [0, 10 ** (-2.5 * look.contrast ** 2)];
  return [10 ** (0.5 - 2 * look.contrast), Math.max(3, look.keys ** (1.25 - look.contrast))];
}

/** From a weight to 0 .. 1. */
export function fraction(look: Look): (w: number) => number {
  const [low, high] = ends(look);
  if (look.scale === "linear") return (w) => Math.min(1, w / high);
  const a = Math.log(low);
  const span = Math.log(high) - a;
  return (w) => (w <= low ? 0 : Math.min(1, (Math.log(w) - a) / span));
}

/** The number that the scale shows of bin n. */
export function shown(planes: Planes, n: number, look: Pick<Look, "scale" | "pooling">): number {
  if (look.scale === "uniform") {
    return look.pooling === "max" ? planes.lift[n] : planes.mass[n] / (planes.uniform[n] || 1);
  }
  return look.pooling === "max" ? planes.max[n] : planes.mass[n];
}

/** A picture of a tile, one pixel a bin; hidden bins stay transparent. */
export function paint(planes: Planes, look: Look): HTMLCanvasElement {
  const colours = shades(look.palette);
  const at = fraction(look);
  return picture(planes, (n) => colours[Math.round(at(shown(planes, n, look)) * (SHADES - 1))]);
}

/** Signed difference of two bins, -1 .. 1: of the weights, or of their logarithms (two decades) on the log scale. */
export function contrastOf(a: Planes, b: Planes, n: number, look: Look): number {
  const [x, y] = [shown(a, n, look), shown(b, n, look)];
  const [low, high] = ends(look);
  if (look.scale === "linear") return Math.max(-1, Math.min(1, (x - y) / high));
  return Math.max(-1, Math.min(1, Math.log10(Math.max(x, low) / Math.max(y, low)) / 2));
}

export function paintDifference(a: Planes, b: Planes, look: Look): HTMLCanvasElement {
  const colours = shades(look.dark ? "difference" : "differenceLight");
  return picture(a, (n) => colours[Math.round(((contrastOf(a, b, n, look) + 1) / 2) * (SHADES - 1))]);
}

function picture(planes: Planes, colour: (n: number) => number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, planes.cols);
  canvas.height = Math.max(1, planes.rows);
  const image = new ImageData(canvas.width, canvas.height);
  const words = new Uint32Array(image.data.buffer);
  for (let n = 0; n < planes.rows * planes.cols; n++) if (planes.uniform[n] > 0) words[n] = colour(n);
  canvas.getContext("2d")!.putImageData(image, 0, 0);
  return canvas;
}

export function css(word: number): string {
  return `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
}

/** Whether black or white text reads better on a colour. */
export function inkOn(word: number): string {
  const light = 0.2126 * linear((word & 255) / 255) + 0.7152 * linear(((word >> 8) & 255) / 255) + 0.0722 * linear(((word >> 16) & 255) / 255);
  return light > 0.25 ? "#101114" : "#f6f5f2";
}

export function shade(look: Look, w: number): number {
  return shades(look.palette)[Math.round(fraction(look)(w) * (SHADES - 1))];
}
