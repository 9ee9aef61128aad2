function doing(r) {
  const state = r.state + (r.tier ? " " + r.tier : "");
  if (r.phase) return `${state}: ${r.phase}`;
  return `${state} for ${span(Math.max(now_us() - r.since_us, 0) / 1e6)}`;
}
function reasons(r) {  // why it is as it is, and what comes next
  const said = [];
  if (r.state === "ready" && r.cause === "linger") said.push(`kept ready by the policy ${r.policy}`);
  else if (r.state === "ready" && r.cause === "floor") said.push("kept ready by a floor");
  else if (r.state === "ready") said.push(`serving ${plural(r.in_flight, "request")}`);
  else if (r.state === "waking") said.push(r.ready_in_us == null ? "waking" : `ready in about ${span(Math.max(r.ready_in_us, 0) / 1e6)}`);
  if (r.parks_at_us != null) said.push(`parks in ${span(Math.max(r.parks_at_us - now_us(), 0) / 1e6)}`
    + (r.ladder.length ? ` (${r.ladder.join(" > ")})` : ""));
  return [said.join("; "), ...now.status.bridges.filter(b => b.model === r.model).map(b => b.what), ...Object.values(r.notes)];
}
function wrong(r) {  // what went wrong last, unmistakable for as long as nothing has gone right since
  if (!r.last_error || !(r.failures || r.last_error_us >= r.since_us)) return "";
  return `${r.failures > 1 ? `${r.failures} failed wakes in a row` : "failed"} ${span((now_us() - r.last_error_us) / 1e6)} ago: ${r.last_error.replace(/[.]?$/, ".")}`
    + (r.retry_at_us ? ` Backing off: the next wake may begin in ${span(Math.max(r.retry_at_us - now_us(), 0) / 1e6)}.` : "");
}
const nameOf = r => now.status && now.status.replicas.filter(o => o.model === r.model).length > 1 ? r.replica : r.model;
const costOf = model => now.costs && now.costs.models.find(m => m.model === model);
function row(r, tr) {
  const w = r.wake, cost = costOf(r.model), error = wrong(r);
  const cell = (kind, label, ...children) => h("td", { className: kind, data: label ? { label } : {} }, ...children);
  tr.className = r.state + (error ? " failing" : "");
  const late = w.over_budget ? ` (${w.over_budget} missed)` : "";
  const does = (text, act, off) => Object.assign(button(text, act, { "aria-label": `${text} ${nameOf(r)}` }), { disabled: off });
  tr.replaceChildren(
    h("th", { scope: "row", className: "name", textContent: nameOf(r), title: r.replica }),
    cell("", "", h("span", {}, h("span", { className: "dot" }), doing(r))),
    cell("why", "", h("span", {}, ...reasons(r).filter(Boolean).flatMap(text => [text, h("br")]), ...(error ? [h("span", { className: "bad", textContent: error })] : []))),
    cell("n", "in flight", String(r.in_flight)), cell("n", "held", String(r.held)), cell("n", "wake p50 / p95 / max", [w.p50_s, w.p95_s, w.max_s].map(span).join(" / ")),
    cell("n" + (w.over_budget ? " missed" : ""), "budget", span(w.budget_s) + late),
    cell("n", "today", cost ? money(cost.today_nusd) : "–"), cell("n", "month", cost ? money(cost.month_nusd) : "–"),
    cell("n", "duty", cost && cost.paid_us ? `${Math.round(100 * cost.useful_us / cost.paid_us)} %` : "–"),
    cell("do", "", does("Wake", () => wake(r), r.state !== "parked"), does("Park", () => park(r), r.state !== "ready")));
}
function drawModels() {
  const wanted = $("filter").value.toLowerCase(), body = $("replicas"), old = new Map([...body.children].map(tr => [tr.dataset.replica, tr]));
  const shown = now.status.replicas.filter(r => r.model.toLowerCase().includes(wanted));
  const rows = shown.map(r => {
    const tr = old.get(r.replica) || h("tr", { data: { replica: r.replica } }), cost = costOf(r.model);
    const key = JSON.stringify([r.state, r.in_flight, r.held, r.wake, r.notes, doing(r), reasons(r), wrong(r), cost && [cost.today_nusd, cost.month_nusd]]);
    const inside = tr.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    if (!same(tr, key)) { row(r, tr); if (inside) [...tr.querySelectorAll("button")].find(b => b.getAttribute("aria-label") === inside)?.focus(); }
    return tr;
  });
  if (rows.length !== body.children.length || rows.some((tr, at) => body.children[at] !== tr)) body.replaceChildren(...rows);
  $("no-models").textContent = shown.length ? "" : now.status.replicas.length ? "No model has that in its name." : "fleet.toml names no model yet.";
}
function drawFigures() {
  const costs = now.costs; if (!costs) return;
  const sum = name => costs.models.reduce((total, m) => total + m[name], 0);
  const paid = sum("paid_us"), awake = sum("month_awake_nusd"), saved = awake - sum("month_nusd"), n = now.status ? now.status.replicas : [];
  const ready = n.filter(r => r.state === "ready").length;
  const figures = [["now", money(sum("now_nusd_h")) + " / h", `${money(sum("now_awake_nusd_h"))} / h if nothing slept`, ""],
    ["today", money(sum("today_nusd")), `${money(sum("today_awake_nusd"))} if nothing slept`, ""],
    ["this month", money(sum("month_nusd")), `${money(awake)} if nothing slept`, ""],
    ["saved this month", money(saved), awake > 0 ? `${Math.round(100 * saved / awake)} % of running always` : "no rate is configured", saved > 0 ? "saved" : ""],
    ["duty cycle", paid ? `${Math.round(100 * sum("useful_us") / paid)} %` : "–", `${span(sum("useful_us") / 1e6)} useful of ${span(paid / 1e6)} paid`, ""],
    ["ready", `${ready} of ${n.length}`, plural(n.reduce((t, r) => t + r.held, 0), "request") + " held", ""]];
  if (!same($("figures"), JSON.stringify(figures))) $("figures").replaceChildren(...figures.map(([name, value, more, kind]) =>
    h("div", { className: kind }, h("dt", { textContent: name }), h("dd", {}, value, h("small", { textContent: more })))));
}
async function act(path, [title, text], [doing, verb], told) {  // ask whether it is meant, do it, tell how it went
  if (!(await dialog(title, h("p", { textContent: text }), [["Cancel", false], [verb, true, "main"]]))) return;
  toast(doing);
  try { toast(told(await ask(path, { method: "POST" }))); } catch (error) { toast(error.message); }
  look();
}
const move = (r, verb, doing, verbs, sure) => act(`/models/${encodeURIComponent(nameOf(r))}/${verb}`, sure, [`${nameOf(r)}: ${doing}`, verbs],
  done => `${nameOf(r)}: ${done.state}${done.tier ? " " + done.tier : ""}${done.why ? ": " + done.why : ""}`);
const wake = r => move(r, "wake", "waking", "Wake", [`Wake ${nameOf(r)}?`, `A ready replica costs ${money(costOf(r.model)?.now_awake_nusd_h || 0)} an hour, from the start of its wake until it is parked.`]);
const park = r => move(r, "park", "parking", "Park", [`Park ${nameOf(r)}?`, "No new request reaches it; those in flight finish first. The next request has to wait for a wake."]);
const lift = limit => act(`/limits/${encodeURIComponent(limit.key)}/lift`, [`Lift ${limit.key} until ${limit.lifts}?`,
  `Now ${limit.what}. Lifted, it stops nothing: wakes and requests cost what they cost until then, when it holds again. The ledger records who lifted it.`],
  ["lifting", "Lift"], done => done.what);
$("reload").addEventListener("click", () => act("/reload", ["Reload fleet.toml?", "A model whose engine is started in another way drains and is parked, and its next wake costs its price. All else holds at once. A faulty file changes nothing."],
  ["reading fleet.toml", "Reload"], done => done.changes.length ? done.changes.join("; ") : "Nothing has changed."));
$("filter").addEventListener("input", () => now.status && drawModels());
