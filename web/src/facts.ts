// Known patterns, and the heads that show each most clearly.

import type { HeadRef, LayerData, RecordData } from "./payload";
import type { Source } from "./source";
import { queryToken } from "./tokens";

export interface Top {
  ref: HeadRef;
  value: number;
}

/** A score that names a pattern, and its highest heads. */
export interface Fact {
  score: string;
  tops: Top[];
}

/** Whether key j is the partner that the pattern expects of the query whose own column is `own`. */
type Partner = (tokens: readonly string[], own: number, j: number) => boolean;

const PATTERNS: [RegExp, Partner | null][] = [
  [/^sink_mass_1$/, (_, own, j) => j === 0 && own > 0],
  [/^previous_token$/, (_, own, j) => j === own - 1],
  [/^induction$/, (tokens, own, j) => j > 0 && j <= own && tokens[j - 1] === tokens[own]],
  [/^prefix_matching$/, (tokens, own, j) => j > 0 && j <= own && tokens[j - 1] === tokens[own]],
  [/^duplicate_token$/, (tokens, own, j) => j < own && tokens[j] === tokens[own]],
  [/^learned_sink_share$/, null],
  [/^retrieval$/, null],
  [/^query_focused_retrieval$/, null],
];
const SHOWN = 3;
/** Below this no head can be said to show the pattern. */
const LEAST = 0.05;
/** At most as many queries, and weights, are looked at in search of a telling one. */
const LOOKED_AT = 256;
const WEIGHTS = 1 << 20;

export function factsOf(record: RecordData, at: number): Fact[] {
  const facts: Fact[] = [];
  for (const [pattern] of PATTERNS) {
    const score = Object.keys(record.scores).find((name) => pattern.test(name));
    if (score === undefined) continue;
    const all = record.scores[score].flatMap((row, layer) =>
      row.flatMap((value, head) => (value !== null && value >= LEAST ? [{ ref: { record: at, layer, head }, value }] : [])),
    );
    const tops = all.sort((a, b) => b.value - a.value).slice(0, SHOWN);
    if (tops.length) facts.push({ score, tops });
  }
  // One induction score is enough: the one on a probe, where it was asked for.
  return facts.filter(({ score }) => score !== "prefix_matching" || !facts.some((f) => f.score === "induction"));
}

/** The fact that the first screen shows. */
export function opening(facts: Fact[]): Fact | null {
  const clear = (name: RegExp): Fact | undefined => facts.find(({ score, tops }) => name.test(score) && tops[0].value >= 0.2);
  return clear(/^(induction|prefix_matching)$/) ?? clear(/^previous_token$/) ?? facts[0] ?? null;
}

/** The query of this head that shows the pattern best; null where the score has none. */
export async function tellingRow(source: Source, ref: HeadRef, score: string, record: RecordData, layer: LayerData): Promise<number | null> {
  const partner = PATTERNS.find(([pattern]) => pattern.test(score))?.[1];
  const tokens = record.tokens;
  if (!partner || !tokens || record.queryTokens) return null;
  // In the second half, where there is much to choose from.
  const few = Math.max(1, Math.min(LOOKED_AT, Math.floor(WEIGHTS / layer.cols)));
  const from = Math.max(Math.floor(layer.rows / 2), layer.rows - few);
  const weights = await source.part(ref, from, layer.rows, 0, layer.cols, 0);
  let best = 0.05;
  let row: number | null = null;
  for (let i = from; i < layer.rows; i++) {
    const own = i + layer.ahead;
    let sum = 0;
    for (let j = 0; j < layer.cols; j++) {
      const w = weights[(i - from) * layer.cols + j];
      if (w > 0 && partner(tokens, own, j)) sum += w;
    }
    // A word says more than a comma.
    if (!/\p{L}{3}/u.test(queryToken(record, layer, i) ?? "")) sum *= 0.6;
    if (sum > best) [best, row] = [sum, i];
  }
  return row;
}
