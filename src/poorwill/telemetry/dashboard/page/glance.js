function doing(r) {
  const state = r.state + (r.tier ? (r.state === "waking" ? " from " : " ") + r.tier : "");
  if (r.phase) return `${state}: ${r.phase}`;
  return `${state} for ${span(Math.max(now_us() - r.since_us, 0) / 1e6)}`;
}
function reasons(r) {  // why it is as it is, and what comes next
  const said = [];
  if (r.state === "ready" && r.cause === "linger") said.push(`kept ready by the policy ${r.policy}`);
  else if (r.state === "ready" && r.cause === "floor") said.push("kept ready by a floor");
  else if (r.state === "ready") said.push(`serving ${plural(r.in_flight, "request")}`);
  else if (r.state === "waking") said.push(r.ready_in_us == null ? "waking" : `ready in about ${span(Math.max(r.ready_in_us, 0) / 1e6)}`);
  const next = r.ladder[r.state === "parked" ? r.ladder.indexOf(r.tier) + 1 : 0];
  if (r.parks_at_us != null) said.push(`parks${next ? " " + next : ""} in ${span(Math.max(r.parks_at_us - now_us(), 0) / 1e6)}`);
  return [said.join("; "), ...now.status.bridges.filter(b => b.model === r.model).map(b => b.what), ...Object.values(r.notes)];
}
function wrong(r) {  // what went wrong last, unmistakable for as long as nothing has gone right since
  if (!r.last_error || !(r.failures || r.last_error_us >= r.since_us)) return "";
  return `${r.failures > 1 ? `${r.failures} failed wakes in a row` : "failed"} ${span((now_us() - r.last_error_us) / 1e6)} ago: ${r.last_error.replace(/[.]?$/, ".")}`
    + (r.retry_at_us ? ` Backing off: the next wake may begin in ${span(Math.max(r.retry_at_us - now_us(), 0) / 1e6)}.` : "");
}
const nameOf = r => now.status && now.status.replicas.filter(o => o.model === r.model).length > 1 ? r.replica : r.model;
const costOf = model => now.costs && now.costs.models.find(m => m.model === model);
function interval(r) {  // the wakes that were, against the budget they must keep
  const w = r.wake, whole = Math.max(w.budget_s, w.max_s || 0, 1e-9), at = s => `${Math.min(100, 100 * s / whole)}%`;
  if (!w.count) return h("div", { className: "interval" }, h("span", { className: "note", textContent: `none yet, of ${span(w.budget_s)}` }));
  return h("div", { className: "interval" },
    h("div", { className: "gauge", aria: { "aria-hidden": "true" } }, h("i", { className: "p95", style: { width: at(w.p95_s) } }), h("i", { className: "p50", style: { width: at(w.p50_s) } }),
      h("i", { className: "tick", style: { left: at(w.max_s) } }), ...(w.max_s > w.budget_s ? [h("i", { className: "tick over", style: { left: at(w.budget_s) } })] : [])),
    h("span", { className: w.over_budget ? "missed" : "" }, `${[w.p50_s, w.p95_s, w.max_s].map(span).join(" / ")} of ${span(w.budget_s)}` + (w.over_budget ? ` (${w.over_budget} missed)` : "")));
}
const ladder = r => h("span", { className: "ladder" }, ...r.ladder.map(tier => h("span", { className: tier === r.tier ? "here" : "", textContent: tier })));
function row(r, tr) {
  const cost = costOf(r.model), error = wrong(r), captured = now.status.captures.find(one => one.model === r.model);
  const cell = (kind, label, ...children) => h("td", { className: kind, data: label ? { label } : {} }, ...children);
  const first = now.status.replicas.find(o => o.model === r.model) === r, bill = (label, text) => cell("n", first ? label : "", first && cost ? text(cost) : first ? "–" : "");
  tr.className = r.state + (error ? " failing" : "") + (first ? "" : " further");
  const does = (text, act, off = false) => Object.assign(button(text, act, { "aria-label": `${text} ${nameOf(r)}` }), { disabled: off });
  const said = reasons(r).filter(Boolean);
  tr.replaceChildren(
    h("th", { scope: "row", className: "name", title: r.replica }, h("span", { textContent: nameOf(r) })),
    cell("state", "", h("div", {}, h("span", { className: "dot" }), h("strong", { textContent: doing(r) }), ladder(r), ...(captured ? [h("span", { className: "tag", textContent: "prompts kept" })] : [])),
      ...said.map(text => h("div", { className: "why", textContent: text })), ...(error ? [h("div", { className: "why bad", textContent: error })] : [])),
    cell("n" + (r.in_flight ? " some" : ""), "in flight", String(r.in_flight)), cell("n" + (r.held ? " some" : ""), "held", String(r.held)),
    cell("", "wakes p50 / p95 / max", interval(r)),
    bill("today", c => money(c.today_nusd)), bill("month", c => money(c.month_nusd)), bill("duty", c => c.paid_us ? `${Math.round(100 * c.useful_us / c.paid_us)} %` : "–"),
    cell("do", "", r.state === "parked" ? does("Wake", () => wake(r)) : does("Park", () => park(r), r.state !== "ready")));
}
function drawModels() {
  const wanted = $("filter").value.toLowerCase(), body = $("replicas"), old = new Map([...body.children].map(tr => [tr.dataset.replica, tr]));
  const shown = now.status.replicas.filter(r => r.model.toLowerCase().includes(wanted));
  const rank = new Map(now.status.replicas.map((r, at) => [r.replica, at]));
  const rows = shown.map(r => {
    const tr = old.get(r.replica) || h("tr", { data: { replica: r.replica } }), cost = costOf(r.model);
    const key = JSON.stringify([r.state, r.in_flight, r.held, r.wake, r.notes, doing(r), reasons(r), wrong(r), cost && [cost.today_nusd, cost.month_nusd, cost.useful_us], r.ladder, now.status.captures.map(one => one.model), rank.get(r.replica)]);
    const inside = tr.contains(document.activeElement);
    if (!same(tr, key)) { row(r, tr); if (inside) tr.querySelector("button").focus(); }
    return tr;
  });
  if (rows.length !== body.children.length || rows.some((tr, at) => body.children[at] !== tr)) {
    const held = document.activeElement; body.replaceChildren(...rows);
    if (held.isConnected && held !== document.activeElement) held.focus();
  }
  $("no-models").textContent = shown.length ? "" : "No model has that in its name.";
}
function drawFigures() {
  const costs = now.costs || { models: [] }, sum = name => costs.models.reduce((total, m) => total + m[name], 0);
  const paid = sum("paid_us"), awake = sum("month_awake_nusd"), saved = awake - sum("month_nusd"), n = now.status ? now.status.replicas : [];
  const ready = n.filter(r => r.state === "ready").length;
  const figures = [["now", money(sum("now_nusd_h")) + " / h", `${money(sum("now_awake_nusd_h"))} / h if nothing slept`, ""],
    ["today", money(sum("today_nusd")), `${money(sum("today_awake_nusd"))} if nothing slept`, ""],
    ["this month", money(sum("month_nusd")), `${money(awake)} if nothing slept`, ""],
    ["saved this month", money(saved), awake > 0 ? `${Math.round(100 * saved / awake)} % of running always` : now.costs ? "no rate is configured" : "loading", saved > 0 ? "saved" : ""],
    ["duty cycle", paid ? `${Math.round(100 * sum("useful_us") / paid)} %` : "–", `${span(sum("useful_us") / 1e6)} useful of ${span(paid / 1e6)} paid`, ""],
    ["ready", `${ready} of ${n.length}`, plural(n.reduce((t, r) => t + r.held, 0), "request") + " held", ""]];
  if (!same($("figures"), JSON.stringify(figures))) $("figures").replaceChildren(...figures.map(([name, value, more, kind]) =>
    h("div", { className: kind }, h("dt", { textContent: name }), h("dd", {}, value, h("small", { textContent: more })))));
}
