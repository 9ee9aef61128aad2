const GUTTER = 52, FOOT = 20, HEAD = 8;
const nice = most => { const ten = 10 ** Math.floor(Math.log10(most)); return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(by => by * ten).find(end => end >= most * .999); };
function plot(box, label, most, text, high = 170) {  // a chart as wide as its box, in real pixels, with its scale
  const across = Math.max(box.clientWidth, 220), end = nice(Math.max(most, 1e-9)), y = value => high - FOOT - value / end * (high - FOOT - HEAD);
  const chart = svg("svg", { class: "chart", width: across, height: high, viewBox: `0 0 ${across} ${high}`, role: "img", "aria-label": label });
  const steps = text === brief && end % 2 ? [0, end] : [0, end / 2, end];  // no half a request
  for (const value of most > 0 ? steps : [0]) chart.append(svg("line", { x1: GUTTER, x2: across, y1: y(value), y2: y(value), class: value ? "grid" : "base" }),
    svg("text", { x: GUTTER - 6, y: y(value) + 4, "text-anchor": "end" }, text(value)));
  return { chart, across, y, high, end, wide: across - GUTTER };
}
const named = (svgOf, text) => { svgOf.append(svg("title", {}, text)); return svgOf; };
function bars(box, columns, label, text) {  // stacked columns: [{name, parts: [[kind, value]], told}]
  const sum = column => column.parts.reduce((all, [, value]) => all + value, 0);
  const { chart, y, high, wide } = plot(box, label, Math.max(...columns.map(sum), 0), text), each = wide / Math.max(columns.length, 1);
  const gap = Math.min(each * .22, 10), every = Math.ceil(76 / each);
  columns.forEach((column, at) => {
    const left = GUTTER + at * each, bar = named(svg("g", { class: "column" }, svg("rect", { x: left, y: HEAD, width: each, height: high - FOOT - HEAD, fill: "transparent" })), column.told);
    let height = 0;
    for (const [kind, value] of column.parts) if (value > 0) {
      bar.append(svg("rect", { x: left + gap / 2, y: y(height + value), width: Math.max(each - gap, 1), height: Math.max(y(height) - y(height + value), .4), fill: `var(--${kind})` })); height += value; }
    chart.append(bar);
    const edge = at === columns.length - 1 && each < 40;
    if ((columns.length - 1 - at) % every === 0) chart.append(svg("text", { x: edge ? left + each : left + each / 2, y: high - 4, "text-anchor": edge ? "end" : "middle" }, column.name));
  });
  return chart;
}
function dots(box, points, label, text, from, to, line) {  // instants against values: [{at, value, kind, told}], and a line not to be crossed
  const { chart, across, y, high, end, wide } = plot(box, label, Math.max(...points.map(p => p.value), line && line <= 3 * Math.max(...points.map(p => p.value), 0) ? line : 0, 0), text);
  const x = at => GUTTER + 6 + (at - from) / Math.max(to - from, 1) * (wide - 12);
  if (line && line <= end) chart.append(named(svg("line", { x1: GUTTER, x2: across, y1: y(line), y2: y(line), class: "never" }), `the budget, ${text(line)}`));
  for (const p of points) chart.append(named(svg("circle", { cx: x(p.at), cy: y(p.value), r: 3.5, fill: `var(--${p.kind})`, class: "mark" }), p.told));
  const ends = to - from > 1.8e11 ? at => day(at) : at => clock(at).slice(0, 5);
  chart.append(svg("text", { x: GUTTER, y: high - 4 }, ends(from)), svg("text", { x: across, y: high - 4, "text-anchor": "end" }, ends(to)));
  return chart;
}
const day = us => new Date(us / 1000).toLocaleDateString(undefined, { month: "short", day: "numeric" });
const brief = n => n >= 1e6 ? +(n / 1e6).toPrecision(3) + " M" : n >= 1e4 ? +(n / 1e3).toPrecision(3) + " k" : Math.round(n).toLocaleString();
const DAY_US = 86_400_000_000;
function byDay(costs) {  // what each of the last days cost, by cause
  const days = new Map(), today = Math.floor(costs.now_us / DAY_US) * DAY_US;
  for (const [at, cause, nusd] of costs.days) { const day = days.get(at) || new Map(), kind = group(cause); day.set(kind, (day.get(kind) || 0) + nusd); days.set(at, day); }
  if (days.size) for (let at = today; at > today - 14 * DAY_US; at -= DAY_US) days.has(at) || days.set(at, new Map());
  return [...days].sort(([a], [b]) => a - b).map(([at, day]) => {
    const name = new Date(at / 1000).toLocaleDateString(undefined, { month: "short", day: "numeric", timeZone: "UTC" }), parts = GROUPS.map(([kind]) => [kind, day.get(kind) || 0]);
    return { name, parts, told: `${name}: ` + (parts.filter(([, v]) => v).map(([kind, v]) => `${kind} ${money(v)}`).join(", ") || "nothing") };
  });
}
function byHour(costs, kind, value, text) {  // one figure of each of the last 24 hours
  const hour = at => new Date(at / 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }), last = Math.floor(costs.now_us / 3.6e9) * 3.6e9;
  const known = new Map(costs.hours.map(one => [one.at_us, one])), none = { requests: 0, failed: 0, tokens_in: 0, tokens_out: 0, held_us: 0 };
  return Array.from({ length: 24 }, (_, at) => last - (23 - at) * 3.6e9).map(at => {
    const parts = kind.map((name, number) => [name, value(known.get(at) || none)[number]]);
    return { name: hour(at), parts, told: `${hour(at)}: ${text(known.get(at) || none)}` };
  });
}
const USE = {
  requests: ["Requests by hour", ["serving", "failed"], one => [one.requests - one.failed, one.failed], one => `${plural(one.requests, "request")}, ${one.failed} failed`, brief],
  tokens: ["Tokens by hour, out over in", ["linger", "bridge"], one => [one.tokens_in, one.tokens_out], one => `${brief(one.tokens_in)} tokens in, ${brief(one.tokens_out)} out`, brief],
  held: ["Time that requests were held, by hour", ["wake"], one => [one.held_us], one => span(one.held_us / 1e6), us => span(us / 1e6)],
};
const useChart = (box, costs, name) => { const [label, kinds, value, told, text] = USE[name]; return bars(box, byHour(costs, kinds, value, told), label, text); };
function wakesChart(box, wakes) {
  const good = wakes.filter(one => one.ended_us > one.began_us), budget = Math.min(...good.map(one => one.budget_us || Infinity));
  return dots(box, good.map(one => ({ at: one.began_us, value: one.ended_us - one.began_us, kind: one.ok ? one.from_tier === "cold" ? "park" : "wake" : "failed",
    told: `${one.model} from ${one.from_tier}, ${stamp(one.began_us)}: ${span((one.ended_us - one.began_us) / 1e6)}${one.ok ? "" : ", failed"}` })),
  "How long each of the last wakes took", us => span(us / 1e6), Math.min(...good.map(one => one.began_us)), now_us(), Number.isFinite(budget) ? budget : 0);
}
function drawTrends() {  // the small charts of the overview
  const { costs, wakes } = now; if (!costs || !wakes || $("view-overview").hidden) return;
  const width = $("trends").clientWidth;
  if (same($("trends"), JSON.stringify([width, costs.now_us, wakes.length && wakes[0].wake]))) return;
  const none = text => h("p", { className: "empty", textContent: text }), put = (id, make, there, text) => $(id).replaceChildren(there ? make($(id)) : none(text));
  put("trend-cost", box => bars(box, byDay(costs), "Cost of each day by cause, in small", money), costs.days.length, "No cost yet.");
  put("trend-wakes", box => wakesChart(box, wakes), wakes.length, "No wake has finished yet.");
  for (const name of ["held", "tokens"]) put(`trend-${name}`, box => useChart(box, costs, name), costs.hours.length, "No request today or yesterday.");
}
