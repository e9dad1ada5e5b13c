// Tokens as they are drawn: nothing in them is markup, control characters are made visible, long ones are cut.

import type { LayerData, RecordData } from "./payload";

const PICTURE: Record<string, string> = { "\n": "\u23ce", "\t": "\u21e5", "\r": "\u240d", "\u007f": "\u2421", "\ufeff": "\u25af" };

function visible(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/gu, (c) => {
    const code = c.codePointAt(0)!;
    return PICTURE[c] ?? (code < 32 ? String.fromCodePoint(0x2400 + code) : "\ufffd");
  });
}

function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const points = Array.from(text.slice(0, 2 * most + 2));
  return points.length <= most ? points.join("") : `${points.slice(0, most - 1).join("")}\u2026`;
}

/** For an axis or a cell: short, spaces at the ends left out unless there is nothing else. */
export function label(token: string, most = 24): string {
  if (token === "") return "\u2205";
  const short = cut(token, most + 2);
  const bare = visible(short.replace(/^[ \u2581\u0120]+(?=[^ ])/, "").trimEnd() || short.replace(/ /g, "\u2423"));
  return cut(bare, most);
}

/** For a sentence: everything that can be seen is seen, and its direction stays its own. */
export function quoted(token: string, most = 60): string {
  const shown = token === "" ? "\u2205" : visible(cut(token, most));
  return `\u2068${shown}\u2069`;
}

/** For running text: as it is written, with control characters visible. */
export function running(token: string, most = 400): string {
  return token === "" ? "\u2205" : visible(cut(token, most).replace(/[\n\r]+/g, (c) => "\u23ce".repeat(Math.min(c.length, 2))));
}

export function keyToken(record: RecordData, j: number): string | null {
  return record.tokens?.[j] ?? null;
}

export function queryToken(record: RecordData, layer: LayerData, i: number): string | null {
  if (record.queryTokens) return record.queryTokens[i] ?? null;
  return record.tokens?.[i + layer.ahead] ?? null;
}

/** Places in `tokens` where the text begins, ignoring case; a match may run over several tokens. */
export function search(tokens: readonly string[], wanted: string): number[] {
  const needle = wanted.toLocaleLowerCase();
  if (!needle) return [];
  const starts: number[] = [];
  let whole = "";
  for (const token of tokens) {
    starts.push(whole.length);
    whole += token.toLocaleLowerCase();
  }
  const found: number[] = [];
  let n = 0;
  for (let at = whole.indexOf(needle); at >= 0; at = whole.indexOf(needle, at + 1)) {
    // A leading space belongs to the token; the word that was looked for begins in it.
    while (n + 1 < starts.length && starts[n + 1] <= at) n++;
    if (found[found.length - 1] !== n) found.push(n);
  }
  return found;
}
