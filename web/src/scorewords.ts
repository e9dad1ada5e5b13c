// What head scores are called, and what a head with a high one does; unknown ones keep their own name.

import { language } from "./i18n";

type Words = [name: string, story: string];

const WORDS: [RegExp, { en: Words; "zh-Hant": Words }][] = [
  [/^sink_mass_1$/, {
    en: ["Attention sink", "Rests on the first token, whatever it says: weight that is of no use elsewhere."],
    "zh-Hant": ["注意力匯點", "停在第一個詞元上，無論其內容為何：別處用不到的權重放在這裡。"],
  }],
  [/^sink_mass_(\d+)$/, {
    en: ["Sink, first $1", "The share of weight that the first $1 tokens receive."],
    "zh-Hant": ["匯點（前 $1 個）", "前 $1 個詞元得到的權重比例。"],
  }],
  [/^sink_rate$/, {
    en: ["Sink rate", "1 where the first token receives more than 0.3 of the weight on average."],
    "zh-Hant": ["匯點率", "第一個詞元平均得到超過 0.3 的權重時為 1。"],
  }],
  [/^learned_sink_share$/, {
    en: ["Learned sink", "The share that the learned sink takes from all tokens."],
    "zh-Hant": ["學習到的匯點", "學習到的匯點從所有詞元取走的比例。"],
  }],
  [/^previous_token$/, {
    en: ["Previous token", "Reads the token just before."],
    "zh-Hant": ["前一詞元", "讀取緊鄰的前一個詞元。"],
  }],
  [/^offset_(\d+)$/, {
    en: ["$1 tokens back", "Reads the token $1 places before."],
    "zh-Hant": ["往前 $1 個", "讀取往前第 $1 個詞元。"],
  }],
  [/^(?:induction|prefix_matching)$/, {
    en: ["Induction", "Finds where this token stood before and reads what came next."],
    "zh-Hant": ["歸納頭", "找到此詞元先前的位置，讀取接在其後的詞元。"],
  }],
  [/^duplicate_token$/, {
    en: ["Duplicate token", "Reads earlier copies of this token."],
    "zh-Hant": ["重複詞元", "讀取同一詞元先前的出現處。"],
  }],
  [/^retrieval$/, {
    en: ["Retrieval", "Looks at what is being copied from far away."],
    "zh-Hant": ["檢索", "注視正從遠處抄寫的內容。"],
  }],
  [/^query_focused_retrieval$/, {
    en: ["Question to answer", "From the question, looks at the passage that answers it."],
    "zh-Hant": ["由問題找答案", "從問題看向回答它的段落。"],
  }],
  [/^entropy$/, {
    en: ["Entropy", "How spread out its weights are, in nats."],
    "zh-Hant": ["熵", "權重分散的程度，以奈特為單位。"],
  }],
  [/^effective_tokens$/, {
    en: ["Effective tokens", "How many tokens a query reads, were they read equally."],
    "zh-Hant": ["有效詞元數", "若平均讀取，一個查詢讀了幾個詞元。"],
  }],
  [/^relative_entropy$/, {
    en: ["Relative entropy", "1 where it spreads evenly over all it sees."],
    "zh-Hant": ["相對熵", "平均分散於所有可見詞元時為 1。"],
  }],
  [/^confidence$/, {
    en: ["Confidence", "The largest weight of a query, on average."],
    "zh-Hant": ["信心", "每個查詢最大權重的平均。"],
  }],
  [/^heavy_hitters$/, {
    en: ["Heavy hitters", "How much of the weight the most read tokens receive."],
    "zh-Hant": ["重點詞元", "最常被讀取的詞元得到多少權重。"],
  }],
  [/^local_mass_(\d+)$/, {
    en: ["Within $1 tokens", "The share of weight that stays within $1 tokens."],
    "zh-Hant": ["$1 個詞元以內", "留在 $1 個詞元以內的權重比例。"],
  }],
  [/^mean_distance$/, {
    en: ["Mean distance", "How many tokens away it looks, on average."],
    "zh-Hant": ["平均距離", "平均看向多少個詞元之外。"],
  }],
  [/^max_logit$/, {
    en: ["Largest logit", "The largest score before the softmax."],
    "zh-Hant": ["最大分數", "softmax 之前的最大分數。"],
  }],
  [/^value_weighted$/, {
    en: ["Value-weighted", "Its weights times the size of the values they bring."],
    "zh-Hant": ["值加權", "權重乘以所帶來之值的大小。"],
  }],
];

function words(score: string): Words | null {
  const found = WORDS.find(([pattern]) => pattern.test(score));
  if (!found) return null;
  return found[1][language()].map((text) => score.replace(found[0], text)) as Words;
}

export const scoreName = (score: string): string => words(score)?.[0] ?? score.replace(/_/g, " ");
export const scoreStory = (score: string): string => words(score)?.[1] ?? "";
