const tell = {
  WakeBegan: e => `${e.replica}: waking from ${e.from_tier} (${e.why})`,
  WakeEnded: e => `${e.replica}: ${e.ok ? "ready" : "wake failed"}` + (e.anatomy.length ? ` after ${span((e.at_us - e.anatomy[0].began_us) / 1e6)}` : "")
    + (e.ok ? "" : ": " + e.why),
  ParkEnded: e => `${e.replica}: ${e.ok ? "parked " + e.to_tier : "not parked: " + e.why} in ${span((e.at_us - e.began_us) / 1e6)}`,
  Noted: e => `${e.model || e.replica || "fleet"}: ${e.kind}: ${e.text}`,
  RequestEnded: e => `${e.model}: ${e.status} ${e.outcome} in ${span((e.ended_us - e.arrived_us) / 1e6)}`
    + (e.leased_us && e.leased_us - e.arrived_us > 2000 ? `, held ${span((e.leased_us - e.arrived_us) / 1e6)}` : "")
    + (e.bridge ? `, by ${e.bridge}` : ""),
  ClockStepped: e => `the wall clock stepped by ${(e.by_us / 1e6).toFixed(1)} s`,
  Lost: e => `${e.lost} events were not shown`,
};
const pending = [];
let feed = null, shown = null;
const opened_us = now_us();
function listen() {  // while the page is seen: a browser opens six connections to one server, for all its tabs together
  if (document.hidden) { if (feed) feed.close(); feed = null; }
  if (document.hidden || feed && feed.readyState !== EventSource.CLOSED) return;
  feed = new EventSource("/events?most=20");
  for (const [kind, say] of Object.entries(tell)) feed.addEventListener(kind, message => {
    const e = JSON.parse(message.data);
    if (kind === "WakeBegan") { underWay.set(e.replica, e); predict(e.model, e.from_tier).catch(() => {}); }
    if (kind === "WakeEnded") underWay.delete(e.replica);
    pending.push([e.at_us || e.ended_us || now_us(), say(e)]); if (pending.length > 200) pending.shift();
    if (kind !== "RequestEnded") soon(50);  // what is in work is asked for soon enough, however many requests end
    if (here() === "requests" ? kind === "RequestEnded" : kind === "WakeEnded" || kind === "ParkEnded") soonPast();
    shown ||= setTimeout(() => { shown = null; flush(); }, 250);
  });
}
let pastDue = null;
function soonPast() { pastDue ||= setTimeout(() => { pastDue = null; refreshPast(); }, 2500); }
function refreshPast() { if (!document.hidden && !now.gone && here() !== "logs") refresh[here()](); }
let recalled = false;
function recall() {  // what the ledger has of the time before this page was opened
  if (recalled) return;
  recalled = true;
  $("events").append(...now.wakes.filter(one => one.ended_us < opened_us).slice(0, 20).map(one =>
    event(one.ended_us, `${one.replica}: ${one.ok ? "ready" : "wake failed"} after ${span((one.ended_us - one.began_us) / 1e6)}${one.ok ? "" : ": " + one.failure}`)));
}
const event = (at, text) => h("li", {}, h("time", { textContent: when(at) }), text);
function flush() {
  if (!pending.length) return;
  $("events").prepend(...pending.splice(0).reverse().map(([at, text]) => event(at, text)));
  while ($("events").children.length > 200) $("events").lastChild.remove();
}
let timer = null, due = Infinity;
function soon(ms) { const at = performance.now() + ms; if (at < due) { clearTimeout(timer); due = at; timer = setTimeout(look, ms); } }
function health(status) {
  const ok = status.ledger === "ok" && status.status === "ok";
  $("health").textContent = ok ? `serving, ${status.requests} in work` : status.ledger !== "ok" ? `ledger: ${status.ledger}` : status.status;
  $("health").className = ok ? "pill" : "pill bad";
  const count = {}; for (const r of status.replicas) count[r.failures ? "failed" : r.state] = (count[r.failures ? "failed" : r.state] || 0) + 1;
  const title = Object.entries(count).map(([state, n]) => `${n} ${state}`).join(", ") || "no model";
  if (document.title !== `${title} · poorwill`) {
    document.title = `${title} · poorwill`;
    icon(!ok || count.failed ? "#d92d20" : count.waking ? "#e8a020" : count.ready ? "#1a9f5e" : "#7d8a97");
  }
}
function icon(colour) { $("icon").href = "data:image/svg+xml," + encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path fill="${colour}" d="M20 13.2A8 8 0 1 1 10.8 4a6.4 6.4 0 0 0 9.2 9.2z"/></svg>`); }
function limits(status) {
  if (same($("limits"), JSON.stringify(status.limits.map(l => [l.standing, l.what, Math.round(l.lifts_in_s / 60)])))) return;
  $("limits").replaceChildren(...status.limits.map(limit => {
    const over = { tripped: "it lifts by itself", lifted: "it holds again" }[limit.standing] || "its window ends";
    const line = h("p", { className: limit.standing === "tripped" ? "banner bad" : "note" }, `${limit.standing}: ${limit.what}; ${over} in ${span(limit.lifts_in_s)} `);
    if (limit.to_lift) line.append(button("Lift it", () => lift(limit), { "aria-label": `Lift it: ${limit.key}` }));
    return line;
  }));
}
function configuration(status) {
  const { refused_us, problems, needs_restart } = status.configuration;
  if (same($("configuration"), JSON.stringify([refused_us, problems, needs_restart]))) return;
  const told = refused_us ? [`fleet.toml was refused, and nothing was changed: ${problems.join("; ")}`] : [];
  $("configuration").replaceChildren(...told.map(text => h("p", { className: "banner bad", role: "alert", textContent: text })),
    ...(needs_restart.length ? [h("p", { className: "note", textContent: `waits for a restart: ${needs_restart.join(", ")}` })] : []));
}
async function look() {
  clearTimeout(timer); due = Infinity;
  try {
    const status = await ask("/status");
    now.skew_us = status.now_us - Date.now() * 1000; now.status = status;
    if (now.gone) { now.gone = null; $("gone").hidden = true; readCosts(); readRibbons(); }
    health(status); limits(status); configuration(status); drawModels(); drawFigures(); drawWaking(); drawPulls(); drawCaptures(); drawDevices(); drawHosts(); flush();
    const models = [...new Set(status.replicas.map(r => r.model))];
    choices($("wakes-of"), models, "all"); choices($("log-of"), status.replicas.map(r => r.replica)); choices($("chat-model"), models); choices($("plan-model"), models); chatNote();
  } catch (error) {
    now.gone ||= Date.now();
    $("gone").textContent = `poorwill does not answer since ${new Date(now.gone).toLocaleTimeString()}; trying again. What is shown below is from then.`;
    $("gone").hidden = false; $("health").textContent = "gone"; $("health").className = "pill bad"; document.title = "gone · poorwill"; icon("#d92d20");
  }
  if (!now.gone) listen();
  const waking = now.status && (now.status.replicas.some(r => r.state === "waking") || now.status.pulls.some(p => p.state === "pulling"));
  soon(document.hidden ? 15000 : waking ? 1000 : 2500);
}
const refresh = { overview: () => { readRibbons(); readCosts(); readTrends(); }, wakes: readWakes, costs: readCosts, requests: readRequests, logs: readLog, chat: () => {}, plan: () => {} };
const here = () => location.hash.slice(1) in refresh ? location.hash.slice(1) : "overview";
function show() {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== "view-" + here();
  for (const link of document.querySelectorAll("nav a")) { if (link.hash === "#" + here()) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current"); }
  refresh[here()]();
}
let resized = null;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { drawTrends(); drawCosts(); if (here() === "wakes") readWakes(); }, 200); });
addEventListener("hashchange", () => { show(); scrollTo(0, 0); });
document.addEventListener("visibilitychange", () => { listen(); if (!document.hidden) { look(); refresh[here()](); } });
setInterval(refreshPast, 20000);
setInterval(() => { if (!document.hidden && !now.gone && here() === "logs") readLog(); }, 500);  // a stream would hold one of a browser's six connections to a server
$("leave").hidden = location.protocol !== "https:";  // on this machine nobody logs in
$("leave").addEventListener("click", () => fetch("/logout", { method: "POST" }).finally(() => location.assign("/")));
look().then(() => { $("main").classList.remove("loading"); show(); });
