async function act(path, [title, text], [doing, verb], told, method = "POST") {  // ask whether it is meant, do it, tell how it went
  if (!(await dialog(title, h("p", { textContent: text }), [["Cancel", false], [verb, true, "main"]]))) return;
  toast(doing);
  try { toast(told(await ask(path, { method }))); } catch (error) { toast(error.message); }
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
function drawPulls() {  // downloads: under way, and how the last ones ended
  const pulls = now.status.pulls;
  if (same($("pulls"), JSON.stringify(pulls))) return;
  const says = p => ({ waiting: "waits for its turn", done: `on disk: ${p.path}`, failed: p.why, stopped: "stopped; what is there is kept" })[p.state]
    || (p.need_bytes ? `${size(p.done_bytes)} of ${size(p.need_bytes)}` : "asking the hub");
  $("pulls").replaceChildren(...pulls.map(p => { const share = p.state === "done" ? 100 : p.need_bytes ? Math.round(100 * p.done_bytes / p.need_bytes) : 0, going = p.state === "pulling" || p.state === "waiting";
    return h("div", { className: "pull" }, h("strong", { textContent: p.name, title: `asked for by ${p.by}, ${stamp(p.asked_us)}` }),
      h("div", { className: "track thin", aria: { role: "progressbar", "aria-label": `download of ${p.name}`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": share } }, h("b", { className: p.state, style: { width: `${share}%` } })),
      h("span", { className: p.state === "failed" ? "bad" : "note", textContent: says(p) }),
      ...(going ? [button("Stop", () => act(`/pulls/${encodeURIComponent(p.name)}`, [`Stop the download of ${p.name}?`, "What is there already is kept, and the next download goes on from it."], [`${p.name}: stopping`, "Stop it"], done => `${done.name}: ${done.state}`, "DELETE"), { "aria-label": `Stop ${p.name}` })] : []));
  }));
}
async function pull() {
  const box = h("input", { type: "text", id: "pull-name", autocomplete: "off", spellcheck: false, placeholder: "hf:ORG/NAME or hf:ORG/NAME:Q4_K_M@REVISION" });
  const body = h("form", {}, h("p", { textContent: "A model of the Hugging Face hub, or a model of this fleet that is given by such a name. It is downloaded once, beside the gateway, and a later wake finds it on disk." }), h("label", { htmlFor: "pull-name", textContent: "Name" }), box);
  body.addEventListener("submit", event => { event.preventDefault(); [...$("dialog-buttons").children].at(-1).click(); });
  const asked = dialog("Pull a model?", body, [["Cancel", false], ["Pull", true, "main"]]); box.focus();
  const name = (await asked) && box.value.trim(); if (!name) return;
  try { const found = await ask(`/pulls/${encodeURIComponent(name)}`, { method: "POST" }); toast(`${found.name}: ${found.state}`); } catch (error) { toast(error.message); }
  look();
}
$("pull").addEventListener("click", pull);
function drawCaptures() {  // whose text is kept is said on every view, for as long as it is
  const captures = now.status.captures;
  if (same($("captures"), JSON.stringify(captures))) return;
  $("captures").replaceChildren(...captures.map(one => h("p", { className: "banner warn" }, h("strong", { textContent: "Prompts are kept. " }), `The text of requests to ${one.model} is in memory until ${stamp(one.until_us)}, ${plural(one.prompts, "prompt")} now: its capture_until in fleet.toml says so.`)));
  $("kept-note").textContent = captures.length ? `Of ${captures.map(one => one.model).join(", ")} the text of the last requests is kept for now; of all others neither prompt nor answer.` : "Never a prompt and never an answer: poorwill keeps neither.";
  drawRequests();
}
function drawDevices() {
  const devices = now.status.devices; $("devices-card").hidden = !devices.length;
  if (!devices.length || same($("devices"), JSON.stringify(devices))) return;
  $("devices").replaceChildren(...devices.map(one => {
    const part = (bytes, name, kind, colour) => bytes > 0 ? [h("b", { className: kind, textContent: name, title: `${name}: ${size(bytes)}`, style: { width: `${100 * bytes / one.bytes}%`, ...(colour ? { background: colour } : {}) } })] : [];
    const given = one.replicas.reduce((sum, held) => sum + held.given_bytes, 0);
    return h("div", { className: "wakefall" }, h("span", {}, h("strong", { textContent: /^\d+$/.test(one.id) ? `device ${one.id}` : one.id }), " ", one.name, ...(one.unfit || one.caution ? [h("br"), h("span", { className: one.unfit ? "bad" : "warn", textContent: one.unfit || one.caution })] : [])),
      h("div", { className: "track", aria: { role: "img", "aria-label": `${size(given)} given to replicas, ${size(one.foreign_bytes)} held by other programs, ${size(one.free_bytes)} free, of ${size(one.bytes)}` } },
        ...one.replicas.flatMap(held => part(held.given_bytes, held.replica, "", shade(held.replica))), ...part(one.foreign_bytes, "other programs", "foreign")),
      h("span", { className: "n", textContent: `${size(one.free_bytes)} free of ${size(one.bytes)}` }));
  }));
}
function drawHosts() {
  const hosts = now.status.hosts || []; $("hosts-card").hidden = !hosts.length;
  if (!hosts.length || same($("hosts"), JSON.stringify(hosts))) return;
  $("hosts").replaceChildren(...hosts.flatMap(host => (host.disks.length ? host.disks : [null]).map(disk =>
    h("div", { className: "wakefall" }, h("span", {}, h("strong", { textContent: host.name }), ...(host.answers ? [] : [" ", h("span", { className: "bad", textContent: "silent" })]), ` ${plural(host.engines, "engine")}`, ...(disk ? [h("br"), `${disk.holds.join(" and ")}: ${disk.path}`] : [])),
      ...(disk ? [h("div", { className: "track", aria: { role: "img", "aria-label": `${size(disk.free_bytes)} free of ${size(disk.total_bytes)}` } }, h("b", { className: "foreign", style: { width: `${100 - 100 * disk.free_bytes / disk.total_bytes}%` } })),
        h("span", { className: "n", textContent: `${size(disk.free_bytes)} free of ${size(disk.total_bytes)}` })] : [])))));
}
