const named = (svgOf, text) => { svgOf.append(svg("title", {}, text)); return svgOf; };
function frontier(plan) {  // cost against waiting: what nothing beats in both is joined
  const across = Math.max($("planned").clientWidth, 240), high = 230, of = plan.policies.map(p => ({ p, cost: p.cost_nusd, wait: p.wait.p95_us }));
  const most = name => Math.max(...of.map(o => o[name]), 1), x = o => 46 + o.cost / most("cost") * (across - 90), y = o => high - 34 - o.wait / most("wait") * (high - 60);
  const chart = svg("svg", { class: "chart", style: `height:${high}px`, viewBox: `0 0 ${across} ${high}`, role: "img", "aria-label": "Cost and waiting of each policy; the table below has the figures" });
  const best = of.filter(o => plan.pareto.includes(o.p.name)).sort((a, b) => a.cost - b.cost);
  chart.append(svg("polyline", { points: best.map(o => `${x(o)},${y(o)}`).join(" "), fill: "none", stroke: "var(--accent)", "stroke-width": 1.5 }));
  for (const o of of) chart.append(named(svg("circle", { cx: x(o), cy: y(o), r: o.p.name === plan.recommended ? 7 : 5, fill: o.p.name === plan.recommended ? "var(--wake)" : plan.pareto.includes(o.p.name) ? "var(--accent)" : "var(--parked)" }), `${o.p.name}: ${money(o.cost)}, p95 wait ${span(o.wait / 1e6)}`));
  chart.append(svg("text", { x: across - 4, y: high - 8, "text-anchor": "end" }, `cost, to ${money(most("cost"))}`), svg("text", { x: 2, y: 11 }, `p95 wait, to ${span(most("wait") / 1e6)}`));
  return chart;
}
function gaps(plan) {
  const even = plan.break_even_s, columns = plan.gaps.map(({ to_s, gaps }) => ({ name: span(to_s), parts: [[even != null && to_s > even ? "linger" : "serving", gaps]], told: `${plural(gaps, "gap")} of up to ${span(to_s)}` }));
  return columns.length ? bars(columns, "Idle gaps by length", n => plural(n, "gap")) : h("p", { className: "empty", textContent: "No idle gap yet." });
}
function drawPlan(plan) {
  const cell = text => h("td", { className: "n", textContent: text });
  const rows = plan.policies.map(p => h("tr", {}, h("th", { scope: "row", textContent: (p.name === plan.recommended ? "> " : "") + p.name }), cell(money(p.cost_nusd)), cell(String(p.wakes)), cell(`${Math.round(100 * p.held_share)} %`), cell(span(p.wait.p95_us / 1e6)), cell(p.duty_cycle == null ? "–" : `${Math.round(100 * p.duty_cycle)} %`)));
  const head = ["policy", "cost", "wakes", "held", "p95 wait", "duty"].map((name, at) => h("th", { scope: "col", className: at ? "n" : "", textContent: name }));
  const even = plan.break_even_s == null ? "nothing that is parked pays" : `a gap longer than ${span(plan.break_even_s)} pays for its wake`;
  $("planned").replaceChildren(h("p", {}, h("strong", { textContent: plan.advice || "Nothing to advise on the idle time." })), h("p", { textContent: plan.verdict }), h("h3", { textContent: "Cost and waiting" }), frontier(plan),
    h("div", { className: "wide", tabIndex: 0, role: "region", aria: { "aria-label": "Policies" } }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows))),
    h("h3", { textContent: `Idle gaps: ${even}` }), gaps(plan), ...plan.notes.map(text => h("p", { className: "note", textContent: text })));
}
$("plan-make").addEventListener("click", async () => {
  $("plan-make").disabled = true; $("planned").replaceChildren(h("p", { className: "empty", textContent: "Replaying." }));
  try { const plan = await ask(`/history/plan?${new URLSearchParams({ model: $("plan-model").value })}`); drawPlan(plan.reports ? plan.reports[0] : plan); }
  catch (error) { $("planned").replaceChildren(h("p", { className: "empty bad", textContent: error.message })); }
  $("plan-make").disabled = false;
});
