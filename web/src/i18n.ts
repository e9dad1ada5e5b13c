// The page's words, in English and 繁體中文.

const EN = {
  heads: "Heads",
  colourBy: "Colour by",
  pictures: "their maps",
  layer: "Layer",
  head: "Head",
  layersHeads: "{layers} layers × {heads} heads",
  tokens: "{n} tokens",
  queriesKeys: "{rows} queries × {cols} keys",
  scaleLog: "log",
  scaleLinear: "linear",
  scaleUniform: "× uniform",
  scaleHelp: "How weights become colours. × uniform: how many times what an even spread would give",
  poolMax: "max",
  poolMass: "mass",
  poolHelp: "When a pixel holds many weights: the largest, which keeps lines and needles visible, or their mass (mean over queries, sum over keys; rows sum to 1)",
  hideSink: "Hide sink",
  hideHelp: "Leave the first keys out and renormalise; a learned sink goes too",
  hideNone: "off",
  contrast: "Contrast",
  palette: "Palette",
  zoomIn: "Zoom in",
  zoomOut: "Zoom out",
  fit: "Whole matrix",
  rows: "Queries",
  search: "Find a token",
  found: "{n} of {all}",
  nothing: "not found",
  compare: "Compare",
  difference: "Difference",
  onlyOne: "One map",
  link: "Copy link",
  copied: "Copied",
  theme: "Light or dark",
  language: "中文",
  help: "Keys and gestures",
  close: "Close",
  query: "query",
  key: "key",
  queries: "queries",
  keys: "keys",
  weight: "weight",
  largest: "largest",
  mass: "mass",
  timesUniform: "{x} × uniform",
  hidden: "hidden by the mask",
  hiddenSink: "left out with the sink",
  differenceIs: "left − right",
  text: "Text",
  lines: "Lines",
  reads: "what it reads",
  readBy: "who reads it",
  topP: "Top-p",
  topPHelp: "Show the fewest tokens that hold this share of the weight",
  ofQuery: "What query {i} {token} reads",
  ofQueries: "What queries {a}–{b} read, on average",
  ofKey: "Who reads key {j} {token}",
  sum: "shown: {x} of the weight",
  none: "Click a row of the map, or a token here.",
  computing: "computing {n} %",
  failed: "This could not be shown: {why}",
  exact: "Every weight is computed here from q and k as 16-bit floats; over sampled rows they differ from the record's by at most {x}.",
  exactServed: "Every weight is computed in Python from the record's own q and k.",
  baked: "This layer is stored as pooled maps, because {why}: single weights are shown where a bin is one pair, here {n} × {n} pairs a bin. rec.serve() shows them all.",
  bakedExact: "This layer is stored as its weights, because {why}.",
  caution: "Attention says what a head reads, not why the model answers as it does.",
  about: "About this page",
  gridLabel: "Layers and heads. Arrow keys choose, Enter opens.",
  mapLabel: "Attention map, queries down, keys across. Arrow keys move, plus and minus zoom, 0 shows all, shift and arrow keys read single cells.",
  minimapLabel: "Overview: queries {a}–{b} and keys {c}–{d} are in view. Drag, or press arrow keys, to move.",
  textLabel: "Tokens, coloured by weight",
  linesLabel: "Lines from queries to keys",
  linesShown: "Queries {a}–{b} and keys {c}–{d}, {n} at a time. Move the map to see others.",
  scale: "Scale",
  pooling: "Pooling",
  toolbar: "What the map shows",
  previousHead: "Previous head",
  nextHead: "Next head",
  colours: "Colours",
  auto: "auto",
  ember: "ember",
  ink: "ink",
  viridis: "viridis",
  cividis: "cividis",
  grey: "grey",
  pointAt: "Point at the map to read a weight.",
  copyPicture: "Copy picture",
  savePicture: "Save picture",
  pictureCopied: "Picture copied",
  pictureSaved: "Saved as {name}",
  worthALook: "Worth a look",
  worthHelp: "The heads that show a known pattern most clearly. Choose one.",
  panel: "Text or lines",
  direction: "Direction",
  readingLabel: "Tokens",
  hint: "Scroll to zoom, drag to move, click a row to see what it reads.",
  firstRow: "First query in view",
  lastRow: "Last query in view",
  keysHelp: [
    ["Drag, two fingers", "move"],
    ["Wheel, pinch, + −", "zoom"],
    ["0", "whole matrix"],
    ["Arrows", "move"],
    ["Shift + arrows", "read single cells"],
    ["Click, Enter", "choose a query"],
    ["Shift + drag", "zoom into a box"],
    ["Drag on the left edge", "choose a range of queries"],
    ["[ ]  { }", "head, layer"],
    ["S, P, H", "scale, pooling, hide the sink"],
    ["D", "compare, difference"],
    ["T", "text or lines"],
    ["/", "find a token"],
  ],
};

type Words = typeof EN;

const ZH: Words = {
  heads: "注意力頭",
  colourBy: "著色依據",
  pictures: "各頭的圖",
  layer: "層",
  head: "頭",
  layersHeads: "{layers} 層 × {heads} 頭",
  tokens: "{n} 個詞元",
  queriesKeys: "{rows} 個查詢 × {cols} 個鍵",
  scaleLog: "對數",
  scaleLinear: "線性",
  scaleUniform: "× 均勻",
  scaleHelp: "權重如何對應到顏色。× 均勻：是平均分配的幾倍",
  poolMax: "最大",
  poolMass: "質量",
  poolHelp: "一個像素包含許多權重時：取最大值，細線與孤點不會消失；或取質量（對查詢取平均、對鍵求和，每列總和為 1）",
  hideSink: "隱藏匯點",
  hideHelp: "略去最前面的鍵並重新歸一化；學習到的匯點也一併略去",
  hideNone: "關",
  contrast: "對比",
  palette: "色盤",
  zoomIn: "放大",
  zoomOut: "縮小",
  fit: "整個矩陣",
  rows: "查詢",
  search: "尋找詞元",
  found: "第 {n} 個，共 {all} 個",
  nothing: "找不到",
  compare: "比較",
  difference: "差異",
  onlyOne: "單一圖",
  link: "複製連結",
  copied: "已複製",
  theme: "淺色或深色",
  language: "English",
  help: "按鍵與手勢",
  close: "關閉",
  query: "查詢",
  key: "鍵",
  queries: "查詢",
  keys: "鍵",
  weight: "權重",
  largest: "最大",
  mass: "質量",
  timesUniform: "均勻的 {x} 倍",
  hidden: "被遮罩隱藏",
  hiddenSink: "與匯點一同略去",
  differenceIs: "左 − 右",
  text: "文字",
  lines: "連線",
  reads: "它讀取誰",
  readBy: "誰讀取它",
  topP: "Top-p",
  topPHelp: "只顯示合計達到此比例的最少詞元",
  ofQuery: "查詢 {i} {token} 讀取的內容",
  ofQueries: "查詢 {a}–{b} 平均讀取的內容",
  ofKey: "誰讀取鍵 {j} {token}",
  sum: "已顯示權重的 {x}",
  none: "請點選圖中的一列，或此處的詞元。",
  computing: "計算中 {n} %",
  failed: "無法顯示：{why}",
  exact: "每個權重都由 16 位元浮點數的 q 與 k 在此頁算出；在抽樣的列上，與紀錄相差至多 {x}。",
  exactServed: "每個權重都由 Python 以紀錄中原本的 q 與 k 算出。",
  baked: "此層以彙總圖儲存，因為 {why}：此處每格含 {n} × {n} 對，單一權重請用 rec.serve() 查看。",
  bakedExact: "此層直接儲存權重，因為 {why}。",
  caution: "注意力說明一個頭讀了什麼，並不說明模型為何如此回答。",
  about: "關於此頁",
  gridLabel: "層與頭。方向鍵選擇，Enter 開啟。",
  mapLabel: "注意力圖，縱向為查詢，橫向為鍵。方向鍵移動，加減鍵縮放，0 顯示全部，Shift 加方向鍵逐格閱讀。",
  minimapLabel: "總覽：目前顯示查詢 {a}–{b} 與鍵 {c}–{d}。拖曳或按方向鍵以移動。",
  textLabel: "以權重著色的詞元",
  linesLabel: "由查詢到鍵的連線",
  linesShown: "查詢 {a}–{b} 與鍵 {c}–{d}，一次 {n} 個。移動注意力圖以查看其他部分。",
  scale: "尺度",
  pooling: "彙總",
  toolbar: "圖的顯示方式",
  previousHead: "前一個頭",
  nextHead: "下一個頭",
  colours: "顏色",
  auto: "自動",
  ember: "餘燼",
  ink: "墨藍",
  viridis: "翠綠",
  cividis: "藍黃",
  grey: "灰階",
  pointAt: "將游標移到圖上即可讀取權重。",
  copyPicture: "複製圖片",
  savePicture: "儲存圖片",
  pictureCopied: "已複製圖片",
  pictureSaved: "已儲存為 {name}",
  worthALook: "值得一看",
  worthHelp: "最清楚呈現已知型態的注意力頭。請選一個。",
  panel: "文字或連線",
  direction: "方向",
  readingLabel: "詞元",
  hint: "滾輪縮放，拖曳移動，點選一列即可看它讀取什麼。",
  firstRow: "顯示的第一個查詢",
  lastRow: "顯示的最後一個查詢",
  keysHelp: [
    ["拖曳、雙指", "移動"],
    ["滾輪、捏合、+ −", "縮放"],
    ["0", "整個矩陣"],
    ["方向鍵", "移動"],
    ["Shift + 方向鍵", "逐格閱讀"],
    ["點選、Enter", "選擇查詢"],
    ["Shift + 拖曳", "放大框選範圍"],
    ["在左緣拖曳", "選擇查詢範圍"],
    ["[ ]  { }", "頭、層"],
    ["S、P、H", "尺度、彙總、隱藏匯點"],
    ["D", "比較、差異"],
    ["T", "文字或連線"],
    ["/", "尋找詞元"],
  ],
};

/** What Python and the parts below say of a page, in its own words, and the same in 繁體中文. */
const SENTENCES: [RegExp, string][] = [
  [/^(.*) is a Python function$/s, "$1 是 Python 函式"],
  [/^positions are up to (\d+) apart$/, "位置相距可達 $1"],
  [/^this layer holds maps only$/, "此層只存有彙總圖"],
  [/^the page lacks its part (.*): was it saved whole\?$/, "此頁缺少第 $1 部分：檔案是否完整儲存？"],
  [/^This browser cannot undo deflate; save the page again with compress=False\.$/, "此瀏覽器無法解開 deflate；請以 compress=False 重新儲存此頁。"],
  [/^the browser made no picture$/, "瀏覽器未能產生圖片"],
  [/^Failed to fetch$/, "連不上 Python；它是否仍在執行？"],
];
const FACTS: Record<string, string> = { model: "模型", dtype: "數值型別", tokens: "詞元", notes: "備註", device: "裝置", prompt: "提示", title: "標題" };

export type Language = "en" | "zh-Hant";
let current: Language = "en";

export function setLanguage(language: Language): void {
  current = language;
}
export const language = (): Language => current;
export const preferredLanguage = (): Language => (/^zh/i.test(navigator.language) ? "zh-Hant" : "en");

type Plain = { [K in keyof Words]: Words[K] extends string ? K : never }[keyof Words];

export function t(name: Plain, values: Record<string, string | number> = {}): string {
  const text: string = (current === "en" ? EN : ZH)[name];
  return text.replace(/\{(\w+)\}/g, (whole, key: string) => (key in values ? String(values[key]) : whole));
}

export const keysHelp = (): string[][] => (current === "en" ? EN : ZH).keysHelp;

/** A sentence that was not written here, in the language of the page where it is known. */
export function said(sentence: string): string {
  if (current === "en") return sentence;
  for (const [pattern, words] of SENTENCES) if (pattern.test(sentence)) return sentence.replace(pattern, words);
  return sentence;
}

export const factName = (name: string): string => (current === "en" ? name : (FACTS[name] ?? name));

export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** A weight with as many digits as one can read. */
export function number(x: number): string {
  if (!Number.isFinite(x)) return "\u2013";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 100) return x.toFixed(0);
  if (size >= 0.001) return String(Number(x.toPrecision(4)));
  const [digits, exponent] = x.toExponential(2).split("e");
  const raised = exponent.replace("+", "").replace(/[-\d]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  return `${digits} × 10${raised}`;
}
