function drawCosts() {
  const costs = now.costs; if (!costs || $("view-costs").hidden) return;
  if (same($("days"), JSON.stringify([costs.now_us, $("days").clientWidth]))) return;
  const columns = byDay(costs), open = $("days").querySelector("details")?.open || false, cell = text => h("td", { className: "n", textContent: text });
  $("days").replaceChildren(columns.length ? bars($("days"), columns, "Cost of each day by cause", money) : h("p", { className: "empty", textContent: "No cost yet: no rate is configured, or nothing has run." }), legend(),
    h("details", { open }, h("summary", { textContent: "as a table" }), h("div", { className: "wide", tabIndex: 0, role: "region", aria: { "aria-label": "Cost of each day by cause, as a table" } }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col", textContent: "day" }), ...GROUPS.map(([, text]) => h("th", { scope: "col", className: "n", textContent: text })))),
      h("tbody", {}, ...columns.map(c => h("tr", {}, h("th", { scope: "row", textContent: c.name }), ...c.parts.map(([, v]) => cell(v ? money(v) : "–")))))))));
  const boxes = Object.keys(USE).map(name => [name, h("div")]);  // all are there before one is drawn: then each is as wide as it will be
  $("hours").replaceChildren(...boxes.map(([name, box]) => h("div", { className: "card" }, h("h3", { textContent: USE[name][0] }), box)));
  for (const [name, box] of boxes) box.append(costs.hours.length ? useChart(box, costs, name) : h("p", { className: "empty", textContent: "No request today or yesterday." }));
}
async function readCosts() {
  try { now.costs = await ask("/history/costs"); drawFigures(); drawCosts(); drawTrends(); if (now.status) drawModels(); } catch { /* `look` says that it is gone */ }
}
for (const button of document.querySelectorAll("[data-compare]")) button.addEventListener("click", async () => {
  const until = Math.floor(now_us()), today = Math.floor(until / DAY_US) * DAY_US, days = Number(button.dataset.compare);
  const this_from = today - (days - 1) * DAY_US, into = until - this_from;  // as far into it as it is now, so that like is compared with like
  const edges = { this_from, this_to: until, last_from: this_from - days * DAY_US, last_to: this_from - days * DAY_US + into };
  try { $("compared").textContent = (await ask(`/history/compare?${new URLSearchParams(edges)}`)).join("\n"); } catch (error) { $("compared").textContent = error.message; }
});
