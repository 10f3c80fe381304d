// Merges base-2 exponential histograms and draws them. Bucket i at scale s holds 2^(i/2^s) < v <= 2^((i+1)/2^s).
import { figure, h, share, svg } from "./dom.js";

const COARSE = 3; // eight buckets per doubling: what a chart can show

export function merge(histograms) {
  const scale = Math.min(COARSE, ...histograms.map((each) => each.scale));
  const counts = new Map();
  let zero = 0;
  for (const each of histograms) {
    zero += each.zero_count;
    each.positive.counts.forEach((count, place) => {
      const index = Math.floor((each.positive.offset + place) / 2 ** (each.scale - scale));
      counts.set(index, (counts.get(index) ?? 0) + count);
    });
  }
  const total = zero + [...counts.values()].reduce((sum, count) => sum + count, 0);
  return { scale, counts, zero, total };
}

const edge = (index, scale) => 2 ** (index / 2 ** scale);

function above(merged, limit) {
  // Buckets that lie beyond the limit as a whole: a lower bound, since the one that holds the limit is not counted.
  let count = 0;
  for (const [index, each] of merged.counts) if (edge(index, merged.scale) >= limit) count += each;
  return merged.total ? count / merged.total : null;
}

function quantile(merged, wanted) {
  // The upper edge of the bucket that holds it.
  let count = merged.zero;
  for (const [index, each] of [...merged.counts].sort(([a], [b]) => a - b)) {
    count += each;
    if (count >= wanted * merged.total) return edge(index + 1, merged.scale);
  }
  return 0;
}

export function distribution(title, histograms, limits) {
  const merged = merge(histograms);
  if (!merged.counts.size) return h("p", { class: "faint" }, `${title}: no values yet.`);
  const indexes = [...merged.counts.keys()];
  const ends = Object.values(limits).map((limit) => Math.log2(limit) * 2 ** merged.scale);
  const first = Math.floor(Math.min(...indexes, ...ends)) - 1;
  const last = Math.ceil(Math.max(...indexes, ...ends)) + 2;
  const width = 640, height = 155, base = 130, most = Math.max(...merged.counts.values());
  const x = (index) => 10 + ((index - first) / (last - first)) * (width - 20);
  const strictest = limits.latency_p99_ms ?? Infinity;
  const bars = indexes.map((index) => svg("rect", {
    class: edge(index, merged.scale) >= strictest ? "over" : "bar", x: x(index), width: Math.max(x(index + 1) - x(index) - 1, 0.5),
    y: base - (110 * merged.counts.get(index)) / most, height: (110 * merged.counts.get(index)) / most,
  }));
  const lines = Object.entries(limits).map(([name, limit], row) => svg("g", {},
    svg("line", { class: "limit", x1: x(Math.log2(limit) * 2 ** merged.scale), x2: x(Math.log2(limit) * 2 ** merged.scale), y1: 10, y2: base }),
    svg("text", { x: Math.min(x(Math.log2(limit) * 2 ** merged.scale) + 4, width - 150), y: 20 + 14 * row },
      `${name === "latency_p99_ms" ? "p99" : "p50"} budget ${figure(limit)} ms`)));
  const said = `${merged.total} values, p50 below ${figure(quantile(merged, 0.5))} ms, p99 below ${figure(quantile(merged, 0.99))} ms` + Object.entries(limits).map(([name, limit]) => `, at least ${share(above(merged, limit))} above ${figure(limit)} ms (${name})`).join("");
  return h("figure", {},
    h("figcaption", {}, h("strong", {}, title), ` ${said}`),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${said}` }, bars,
      svg("line", { class: "axis", x1: 10, x2: width - 10, y1: base, y2: base }), lines,
      svg("text", { x: 10, y: base + 18 }, `${figure(edge(first, merged.scale))} ms`),
      svg("text", { x: width - 10, y: base + 18, "text-anchor": "end" }, `${figure(edge(last, merged.scale))} ms`)));
}
