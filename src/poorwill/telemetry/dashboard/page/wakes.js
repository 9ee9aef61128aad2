const SHADES = ["#f0b440", "#e8944a", "#d9c25c", "#9fc987", "#7fb8d6", "#b79be0", "#e09bb4", "#c9b08a", "#7fc9bd", "#d98f8f", "#c5cf6d", "#a9aed0"];
const shades = new Map();  // in the order in which phases were met, so that neighbours differ
const shade = phase => shades.get(phase) || (shades.set(phase, SHADES[shades.size % SHADES.length]), shades.get(phase));
const underWay = new Map();  // replica -> the WakeBegan it is in
const predicted = new Map();  // model -> phases of the median of its last wakes, by the tier they began in
function piece(phase, us, whole, kind) {
  return h("b", { className: kind || "", textContent: us / whole > .012 * phase.length ? phase : "", title: `${phase} ${span(us / 1e6)}`, style: { width: `${100 * us / whole}%`, background: shade(phase) } });
}
function waterfall(wake, whole) {
  const took = wake.ended_us - wake.began_us;
  return h("div", { className: "wakefall" },
    h("span", {}, h("strong", { textContent: wake.model, title: wake.replica }), ` from ${wake.from_tier}`, h("br"), h("span", { className: "note", textContent: when(wake.began_us) + (wake.ok ? `, ${wake.why}, ${plural(wake.held, "request")} held` : "") }), ...(wake.ok ? [] : [h("br"), h("span", { className: "bad", textContent: wake.failure })])),
    h("div", { className: "track", role: "img", aria: { "aria-label": wake.phases.map(([p, a, b]) => `${p} ${span((b - a) / 1e6)}`).join(", ") || "no phases" } },
      ...wake.phases.map(([phase, began, ended]) => piece(phase, ended - began, whole))),
    h("span", { className: "n" + (wake.budget_us && took > wake.budget_us ? " missed" : ""), textContent: span(took / 1e6) }));
}
function phases(wakes) {  // what each phase takes, and in how many of them it is
  const found = new Map();
  for (const wake of wakes) for (const [phase, began, ended] of wake.phases) found.set(phase, [...(found.get(phase) || []), ended - began]);
  return [...found].map(([phase, times]) => { times.sort((a, b) => a - b);
    return h("span", {}, h("i", { style: { background: shade(phase) } }), `${phase} ${span(times[times.length >> 1] / 1e6)}` + (times.length > 1 ? ` (${span(times[0] / 1e6)} to ${span(times.at(-1) / 1e6)})` : "")); });
}
async function readWakes() {
  const model = $("wakes-of").value;
  try {
    const found = await ask(`/history/wakes?${new URLSearchParams({ model, last: 200 })}`), wakes = found.slice(0, 10);
    if (same($("waterfalls"), JSON.stringify([model, found.length && found[0].wake, $("wake-times").clientWidth]))) return;
    const whole = Math.max(1, ...wakes.map(one => one.ended_us - one.began_us)), none = h("p", { className: "empty", textContent: "No wake has finished yet." });
    $("wake-times").replaceChildren(...(wakes.length ? [wakesChart($("wake-times"), found)] : []));
    $("waterfalls").replaceChildren(...(wakes.length ? wakes.map(one => waterfall(one, whole)) : [none]));
    $("phases").replaceChildren(...phases(wakes));
  } catch (error) { $("waterfalls").dataset.key = ""; $("waterfalls").replaceChildren(h("p", { className: "empty bad", textContent: error.message })); }
}
async function readTrends() {
  try { now.wakes = await ask("/history/wakes?model=&last=200"); drawTrends(); recall(); } catch { /* `look` says that it is gone */ }
}
async function predict(model, tier) {  // what the last good wakes of this kind took, phase by phase
  const wakes = (await ask(`/history/wakes?${new URLSearchParams({ model, last: 20 })}`)).filter(one => one.ok && one.from_tier === tier);
  if (!wakes.length) return;
  wakes.sort((a, b) => (a.ended_us - a.began_us) - (b.ended_us - b.began_us));
  predicted.set(model, wakes[wakes.length >> 1].phases.map(([phase, began, ended]) => [phase, ended - began]));
}
function drawWaking() {
  const waking = now.status.replicas.filter(r => r.state === "waking");
  for (const box of document.querySelectorAll(".under-way")) box.replaceChildren(...waking.map(r => {
    const begun = underWay.get(r.replica), since = begun ? begun.at_us : r.since_us, lasted = Math.max(now_us() - since, 0);
    const phases = predicted.get(r.model) || [[r.phase || "waking", lasted + (r.ready_in_us ?? lasted)]];
    const whole = Math.max(phases.reduce((sum, [, us]) => sum + us, 0), lasted + (r.ready_in_us || 0), 1);
    const at = Math.max(phases.findIndex(([phase]) => phase === r.phase), 0);
    const left = r.wake.budget_s - lasted / 1e6;
    return h("div", { className: "card live" },
      h("div", { className: "bar" }, h("strong", { textContent: `${nameOf(r)} is waking: ${r.phase || "starting"}` }),
        h("span", { className: left < 0 ? "bad" : "note", textContent: `${span(lasted / 1e6)} so far, `
          + (r.ready_in_us == null ? "" : `ready in about ${span(r.ready_in_us / 1e6)}, `)
          + `${r.held ? plural(r.held, "request") + " wait" + (r.held === 1 ? "s" : "") : "nobody waits"}, ${begun && begun.asked_by ? `asked for by ${begun.asked_by}, ` : ""}`
          + (left < 0 ? "the budget is over" : `${span(left)} left of the budget`) })),
      h("div", { className: "track", role: "progressbar", aria: { "aria-label": `wake of ${nameOf(r)}`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.min(99, Math.round(100 * lasted / whole)) } },
        ...phases.map(([phase, us], index) => piece(phase, us, whole, index > at ? "ahead" : "")), h("i", { style: { width: `${Math.min(100, 100 * lasted / whole)}%` } })));
  }));
}
$("wakes-of").addEventListener("change", readWakes);
