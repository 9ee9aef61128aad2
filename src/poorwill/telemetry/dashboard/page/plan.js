function frontier(plan) {  // cost against waiting: what nothing beats in both is joined
  const of = plan.policies.map(p => ({ p, cost: p.cost_nusd, wait: p.wait.p95_us })), most = Math.max(...of.map(o => o.cost), 1);
  const { chart, across, y, high, wide } = plot($("planned"), "Cost and waiting of each policy; the table below has the figures", Math.max(...of.map(o => o.wait)), us => span(us / 1e6), 260);
  const least = Math.min(...of.map(o => o.cost)), far = least > 0 && most > 8 * least;  // from far apart, as many times as far
  const end = far ? most : nice(most), share = cost => far ? Math.log(cost / least) / Math.log(most / least) : cost / end, x = o => GUTTER + 14 + share(o.cost) * (wide - 90), best = of.filter(o => plan.pareto.includes(o.p.name)).sort((a, b) => a.cost - b.cost);
  chart.append(svg("polyline", { points: best.map(o => `${x(o)},${y(o.wait)}`).join(" "), fill: "none", stroke: "var(--accent)", "stroke-width": 1.5 }));
  for (const cost of far ? [0, 1 / 3, 2 / 3, 1].map(part => least * (most / least) ** part) : [0, end / 2, end]) chart.append(svg("text", { x: x({ cost }), y: high - 4, "text-anchor": "middle" }, money(+cost.toPrecision(2))));
  const written = [];  // a name is written where no other one is
  for (const o of [...of].sort((a, b) => (b.p.name === plan.recommended) - (a.p.name === plan.recommended) || plan.pareto.includes(b.p.name) - plan.pareto.includes(a.p.name))) {
    const chosen = o.p.name === plan.recommended, on = plan.pareto.includes(o.p.name), left = x(o), top = y(o.wait);
    chart.append(named(svg("circle", { cx: left, cy: top, r: chosen ? 7 : 5, class: "mark", fill: chosen ? "var(--wake)" : on ? "var(--accent)" : "var(--parked)" }), `${o.p.name}: ${money(o.cost)}, p95 wait ${span(o.wait / 1e6)}`));
    if (written.some(([a, b]) => Math.abs(a - left) < 90 && Math.abs(b - top) < 16)) continue;
    written.push([left, top]); const last = left > across - 100;
    chart.append(svg("text", { x: left + (last ? -6 : 6), y: top - 9, "text-anchor": last ? "end" : "start", class: chosen ? "strong" : "" }, o.p.name));
  }
  return chart;
}
function gaps(plan) {
  const even = plan.break_even_s, columns = plan.gaps.map(({ to_s, gaps }) => ({ name: span(to_s), parts: [[even != null && to_s > even ? "linger" : "serving", gaps]], told: `${plural(gaps, "gap")} of up to ${span(to_s)}` }));
  return columns.length ? bars($("planned"), columns, "Idle gaps by length", brief) : h("p", { className: "empty", textContent: "No idle gap yet." });
}
function drawPlan(plan) {
  const cell = text => h("td", { className: "n", textContent: text });
  const rows = plan.policies.map(p => h("tr", { className: p.name === plan.recommended ? "chosen" : "" }, h("th", { scope: "row", textContent: p.name + (p.name === plan.recommended ? " (recommended)" : "") }), cell(money(p.cost_nusd)), cell(String(p.wakes)), cell(`${Math.round(100 * p.held_share)} %`), cell(span(p.wait.p95_us / 1e6)), cell(p.duty_cycle == null ? "–" : `${Math.round(100 * p.duty_cycle)} %`)));
  const head = ["policy", "cost", "wakes", "held", "p95 wait", "duty"].map((name, at) => h("th", { scope: "col", className: at ? "n" : "", textContent: name }));
  const even = plan.break_even_s == null ? "nothing that is parked pays" : `a gap longer than ${span(plan.break_even_s)} pays for its wake`;
  $("planned").replaceChildren(h("p", {}, h("strong", { textContent: plan.advice || "Nothing to advise on the idle time." })), h("p", { textContent: plan.verdict }), h("h3", { textContent: "Cost and p95 wait of each policy" }),
    h("p", { className: "note", textContent: "Joined are those that no other way of serving it here beats in both." }), frontier(plan),
    h("div", { className: "wide", tabIndex: 0, role: "region", aria: { "aria-label": "Policies" } }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows))),
    h("h3", { textContent: `Idle gaps by length: ${even}` }), gaps(plan), ...plan.notes.map(text => h("p", { className: "note", textContent: text })));
}
$("plan-make").addEventListener("click", async () => {
  $("plan-make").disabled = true; $("planned").replaceChildren(h("p", { className: "empty", textContent: "Replaying." }));
  try { const plan = await ask(`/history/plan?${new URLSearchParams({ model: $("plan-model").value })}`); drawPlan(plan.reports ? plan.reports[0] : plan); }
  catch (error) { $("planned").replaceChildren(h("p", { className: "empty bad", textContent: error.message })); }
  $("plan-make").disabled = false;
});
