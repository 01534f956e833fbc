// Merges rankings as Python does (hybridsearch/fusion): the same numbers bit by bit, the same ties, the same order.
// tests/service/test_page.py compares both for random rankings.
//
// A ranking is { ids, scores }, best first. A fusion is { type: "rrf", k, weights } or
// { type: "score", normalization, weights }, as Fusion.to_json gives it. Weights are by retriever name, or null.

export const canMerge = (fusion) => fusion?.type === "rrf" || fusion?.type === "score";

// The fused ranking, { ids, scores }, and what each retriever adds, { name: Map of id to number }.
export function merge(rankings, fusion, candidates = Infinity) {
  const weight = (name) => (fusion.weights ? fusion.weights[name] ?? 0 : 1);
  const used = Object.keys(rankings).filter((name) => weight(name) > 0);
  const total = exactSum(used.map(weight));
  const contributions = {}, parts = new Map();
  for (const name of used) {
    const ids = rankings[name].ids.slice(0, candidates), scores = rankings[name].scores.slice(0, candidates);
    const values = fusion.type === "rrf"
      ? ids.map((_, place) => weight(name) / (fusion.k + (place + 1)))
      : normalized(scores, fusion.normalization).map((value) => value * (weight(name) / total));
    contributions[name] = new Map(ids.map((id, place) => [id, values[place]]));
    ids.forEach((id, place) => parts.has(id) ? parts.get(id).push(values[place]) : parts.set(id, [values[place]]));
  }
  const fused = [...parts].map(([id, values]) => [id, rounded(exactSum(values))]);
  fused.sort((a, b) => b[1] - a[1] || byCodePoint(a[0], b[0]));
  return { ids: fused.map(([id]) => id), scores: fused.map(([, score]) => score), contributions };
}

// The ranking after reranking, { ids, scores }: the first `depth` documents by the reranker's scores, blended with the
// fused scores by the weight `blend`, then the others without scores. null if a score is not known.
export function rerank(fused, scores, depth, blend = 0) {
  const head = fused.ids.slice(0, depth);
  if (!head.every((id) => Object.hasOwn(scores, id))) return null;
  const theirs = normalized(fused.scores.slice(0, depth), "minmax"), ours = head.map((id) => scores[id]);
  const final = blend ? normalized(ours, "minmax").map((value, at) => rounded((1 - blend) * value + blend * theirs[at])) : ours;
  const order = head.map((_, at) => at).sort((a, b) => final[b] - final[a] || a - b);
  const rest = fused.ids.slice(depth);
  return { ids: [...order.map((at) => head[at]), ...rest], scores: [...order.map((at) => final[at]), ...rest.map(() => null)] };
}

function normalized(scores, normalization) {
  if (normalization === "none" || !scores.length) return scores;
  const least = Math.min(...scores), most = Math.max(...scores);
  if (least === most) return scores.map(() => 1);
  const largest = Math.max(...scores.map(Math.abs));
  const scaled = scores.map((score) => score / largest / 2);
  if (normalization === "minmax") {
    const low = Math.min(...scaled), high = Math.max(...scaled);
    return scaled.map((score) => (score - low) / (high - low));
  }
  const mean = pairwiseSum(scaled) / scaled.length;
  const apart = scaled.map((score) => score - mean);
  const deviation = Math.sqrt(pairwiseSum(apart.map((one) => one * one)) / scaled.length);
  return apart.map((one) => one / deviation);
}

// The sum of numpy, which adds in this order.
function pairwiseSum(values, first = 0, length = values.length) {
  if (length < 8) {
    let sum = 0;
    for (let place = 0; place < length; place++) sum += values[first + place];
    return sum;
  }
  if (length > 128) {
    const half = (length >> 1) - ((length >> 1) % 8);
    return pairwiseSum(values, first, half) + pairwiseSum(values, first + half, length - half);
  }
  const sums = values.slice(first, first + 8), even = length - (length % 8);
  for (let place = 8; place < even; place += 8) {
    for (let lane = 0; lane < 8; lane++) sums[lane] += values[first + place + lane];
  }
  let sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  for (let place = even; place < length; place++) sum += values[first + place];
  return sum;
}

// The sum that is rounded once, as math.fsum gives it (Shewchuk, "Adaptive precision floating-point arithmetic", 1997).
export function exactSum(values) {
  const parts = []; // they do not overlap, and the smallest comes first
  for (let x of values) {
    let kept = 0;
    for (let y of parts) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y, low = y - (high - x);
      if (low) parts[kept++] = low;
      x = high;
    }
    parts.length = kept;
    parts.push(x);
  }
  let at = parts.length - 1;
  if (at < 0) return 0;
  let high = parts[at], low = 0;
  while (at > 0) {
    const x = high, y = parts[--at];
    high = x + y;
    low = y - (high - x);
    if (low) break;
  }
  // Half-way cases go to the even number, so the sign of the rest decides.
  if (at > 0 && ((low < 0 && parts[at - 1] < 0) || (low > 0 && parts[at - 1] > 0))) {
    const twice = low * 2, up = high + twice;
    if (twice === up - high) high = up;
  }
  return high;
}

// Python's float(f"{value:.12g}"). It differs from toPrecision only half-way between two numbers.
export function rounded(value) {
  if (value === 0 || !Number.isFinite(value)) return value;
  const [digits, exponent] = Math.abs(value).toExponential(99).split("e");
  const all = digits.replace(".", "");
  if (all[12] !== "5" || /[1-9]/.test(all.slice(13)) || all[11] % 2 === 1) return Number(value.toPrecision(12));
  return Math.sign(value) * Number(`${all[0]}.${all.slice(1, 12)}e${exponent}`); // half-way, and the digit before is even
}

// The order of Python's strings. JavaScript compares halves of characters beyond U+FFFF.
export function byCodePoint(a, b) {
  const length = Math.min(a.length, b.length);
  for (let place = 0; place < length; place++) {
    let x = a.charCodeAt(place), y = b.charCodeAt(place);
    if (x === y) continue;
    if (x >= 0xd800 && y >= 0xd800) {
      x += x >= 0xe000 ? -0x800 : 0x2000;
      y += y >= 0xe000 ? -0x800 : 0x2000;
    }
    return x - y;
  }
  return a.length - b.length;
}
