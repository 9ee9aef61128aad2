let requests = [];
const hasPrompt = q => now.status && now.status.captures.some(one => one.model === q.model && one.since_us && one.since_us <= q.ended_us);
async function showRequest(q) {  // all that is known of a request: its row, what it cost, and its prompt if that is kept
  const list = h("dl", { className: "facts" }), fact = (name, value) => value != null && value !== "" && list.append(h("dt", { textContent: name }), h("dd", { textContent: value }));
  const later = (us, of) => us ? `${span((us - of) / 1e6)} after it arrived` : null;
  fact("request", q.request); fact("model", q.model); fact("path", q.path); fact("key", q.key || "none"); fact("outcome", `${q.status} ${q.outcome}`);
  fact("arrived", stamp(q.arrived_us)); fact("held for", q.leased_us ? span((q.leased_us - q.arrived_us) / 1e6) : null); fact("first byte", later(q.first_byte_us, q.arrived_us)); fact("ended", later(q.ended_us, q.arrived_us));
  fact("tokens", `${q.tokens_in ?? "unknown"} in, ${q.tokens_out ?? "unknown"} out`); fact("served by", q.bridge || q.replica); fact("woken by wake", q.wake);
  const text = h("pre", { className: "told", textContent: "", hidden: true, tabIndex: 0 }), body = h("div", {}, list, text);
  if (hasPrompt(q)) body.append(button("Show the prompt", async event => {
    event.target.disabled = true; text.hidden = false;
    try { const found = await ask(`/prompts/${encodeURIComponent(q.request)}`); text.textContent = plain(found.text) + (found.size_bytes > found.text.length ? `\n(${size(found.size_bytes)} in all)` : ""); } catch (error) { text.textContent = error.message; }
  }));
  ask(`/history/cost?${new URLSearchParams({ request: q.request })}`).then(cost => cost && fact("cost", costText(cost))).catch(() => {});
  return dialog("One request", body, [["Close", null, "main"]]);
}
function drawRequests() {
  const wanted = $("request-filter").value.toLowerCase(), cell = (kind, text, label) => h("td", { className: kind, textContent: text, data: label ? { label } : {} });
  const shown = requests.filter(q => `${q.model} ${q.key} ${q.outcome} ${q.status} ${q.request} ${q.path} ${q.bridge || ""}`.toLowerCase().includes(wanted));
  const rows = shown.slice(0, requests.all ? 500 : 100);
  if (same($("request-rows"), JSON.stringify([wanted, requests.length, requests.length && requests[0].request, rows.length, now.status && now.status.captures]))) return;
  $("request-rows").replaceChildren(...rows.map(q => h("tr", {}, h("th", { scope: "row", className: "name", title: q.request }, h("span", { textContent: q.model })),
    h("td", { data: { label: "arrived" } }, Object.assign(button(when(q.arrived_us), () => showRequest(q), { "aria-label": `request ${q.request}, ${stamp(q.arrived_us)}` }), { className: "link" }), ...(hasPrompt(q) ? [h("span", { className: "tag", textContent: "prompt kept" })] : [])),
    cell("soft", q.path, "path"), cell("", q.key || "–", "key"),
    cell(q.outcome === "ok" ? "" : "bad", `${q.status} ${q.outcome}${q.bridge ? " by " + q.bridge : ""}`, "outcome"), cell("n", q.leased_us ? span((q.leased_us - q.arrived_us) / 1e6) : "–", "held for"),
    cell("n", q.first_byte_us ? span((q.first_byte_us - q.arrived_us) / 1e6) : "–", "first byte"), cell("n", span((q.ended_us - q.arrived_us) / 1e6), "in all"),
    cell("n", q.tokens_in ?? "–", "tokens in"), cell("n", q.tokens_out ?? "–", "tokens out"))));
  $("more-requests").hidden = rows.length === shown.length; $("more-requests").textContent = `Show all ${shown.length}`;
  $("no-requests").textContent = shown.length ? "" : requests.length ? "None of the last requests has that in it." : "No request has been served yet.";
}
async function readRequests() { try { const { all } = requests; requests = Object.assign(await ask("/history/requests?last=500"), { all }); drawRequests(); } catch { /* `look` says that it is gone */ } }
$("more-requests").addEventListener("click", () => { requests.all = true; drawRequests(); });
$("request-filter").addEventListener("input", drawRequests);

const reading = { replica: null, next: null, busy: null };
async function readLog() {
  const replica = $("log-of").value; if (!replica || reading.busy === replica || !$("follow").checked && reading.replica === replica) return;
  reading.busy = replica;
  if (reading.replica !== replica) { reading.replica = replica; reading.next = null; $("log").textContent = ""; }
  try {
    const piece = await ask(`/history/log?${new URLSearchParams(reading.next == null ? { replica } : { replica, start: reading.next })}`);
    if (reading.replica !== replica) return;  // another was chosen meanwhile
    const box = $("log"), low = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    if (piece.text) { box.append(box.firstChild ? piece.text : piece.text.trimStart()); while (box.textContent.length > 400_000) box.firstChild.remove(); if (low) box.scrollTop = box.scrollHeight; }
    reading.next = piece.next;
  } catch (error) { $("log").textContent = error.message; }
  if (reading.busy === replica) reading.busy = null;
}
$("log-of").addEventListener("change", readLog);
function choices(select, values, first) {  // keep what was chosen
  if (same(select, JSON.stringify(values))) return;
  const chosen = select.value;
  select.replaceChildren(...(first ? [h("option", { value: "", textContent: first })] : []), ...values.map(value => h("option", { value, textContent: value })));
  if (values.includes(chosen)) select.value = chosen;
}
