function bars(columns, label, text) {  // stacked columns: [{name, parts: [[kind, value]], told}]
  const most = Math.max(...columns.map(c => c.parts.reduce((sum, [, value]) => sum + value, 0)), 1e-9);
  const across = Math.max($("days").clientWidth, 200), wide = across / Math.max(columns.length, 1);
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${across} 200`, role: "img", "aria-label": label });
  columns.forEach((column, at) => {
    let top = 176;
    const bar = svg("g", {}, svg("title", {}, column.told));
    for (const [kind, value] of column.parts) {
      const high = value / most * 164; top -= high;
      if (high > .2) bar.append(svg("rect", { x: at * wide + wide * .12, y: top, width: wide * .76, height: high, fill: `var(--${kind})`, rx: 1 }));
    }
    chart.append(bar);
    if (at % Math.ceil(56 / wide) === 0) chart.append(svg("text", { x: at * wide + wide / 2, y: 194, "text-anchor": "middle" }, column.name));
  });
  chart.append(svg("text", { x: 2, y: 11 }, text(most)));
  return chart;
}
function drawCosts() {
  const costs = now.costs; if (!costs || $("view-costs").hidden) return;
  const days = new Map();
  for (const [at, cause, nusd] of costs.days) { const day = days.get(at) || new Map(), kind = group(cause); day.set(kind, (day.get(kind) || 0) + nusd); days.set(at, day); }
  const day_us = 86_400_000_000, today = Math.floor(costs.now_us / day_us) * day_us;
  if (days.size) for (let at = today; at > today - 14 * day_us; at -= day_us) days.has(at) || days.set(at, new Map());
  const columns = [...days].sort(([a], [b]) => a - b).map(([at, day]) => { const name = new Date(at / 1000).toLocaleDateString(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
    const parts = GROUPS.map(([kind]) => [kind, day.get(kind) || 0]);
    return { name, parts, told: `${name}: ` + parts.filter(([, v]) => v).map(([kind, v]) => `${kind} ${money(v)}`).join(", ") }; });
  const cell = text => h("td", { className: "n", textContent: text });
  $("days").replaceChildren(columns.length ? bars(columns, "Cost of each day by cause", money) : h("p", { className: "empty", textContent: "No cost yet: no rate is configured, or nothing has run." }),
    h("details", {}, h("summary", { textContent: "as a table" }), h("div", { className: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col", textContent: "day" }), ...GROUPS.map(([, text]) => h("th", { scope: "col", className: "n", textContent: text })))),
      h("tbody", {}, ...columns.map(c => h("tr", {}, h("th", { scope: "row", textContent: c.name }), ...c.parts.map(([, v]) => cell(v ? money(v) : "–")))))))));
  const hour = at => new Date(at / 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const known = new Map(costs.hours.map(one => [one.at_us, one])), last = Math.floor(costs.now_us / 3.6e9) * 3.6e9;
  const hours = Array.from({ length: 24 }, (_, at) => last - (23 - at) * 3.6e9).map(at_us => known.get(at_us) || { at_us, requests: 0, tokens_out: 0, held_us: 0 });
  const of = (what, kind, name, text) => [h("h3", { textContent: what }), bars(hours.map(one => ({ name: hour(one.at_us), parts: [[kind, one[name]]], told: `${hour(one.at_us)}: ${text(one[name])}` })), what + " by hour", text)];
  const held = us => span(us / 1e6), count = n => Math.round(n).toLocaleString();
  $("hours").replaceChildren(...(costs.hours.length ? [...of("Requests", "serving", "requests", count), ...of("Tokens out", "bridge", "tokens_out", count), ...of("Time held, in all", "wake", "held_us", held)]
    : [h("p", { className: "empty", textContent: "No request today or yesterday." })]));
}
async function readCosts() {
  try { now.costs = await ask("/history/costs"); drawFigures(); drawCosts(); if (now.status) drawModels(); } catch { /* `look` says that it is gone */ }
}
for (const button of document.querySelectorAll("[data-compare]")) button.addEventListener("click", async () => {
  const day = 86_400_000_000, until = Math.floor(now_us()), today = Math.floor(until / day) * day, days = Number(button.dataset.compare);
  const this_from = today - (days - 1) * day, into = until - this_from;  // as far into it as it is now, so that like is compared with like
  const edges = { this_from, this_to: until, last_from: this_from - days * day, last_to: this_from - days * day + into };
  try { $("compared").textContent = (await ask(`/history/compare?${new URLSearchParams(edges)}`)).join("\n"); } catch (error) { $("compared").textContent = error.message; }
});
