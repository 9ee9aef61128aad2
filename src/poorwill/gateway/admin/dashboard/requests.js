let requests = [];
function drawRequests() {
  const wanted = $("request-filter").value.toLowerCase(), cell = (kind, text) => h("td", { className: kind, textContent: text });
  const shown = requests.filter(r => `${r.model} ${r.key} ${r.outcome} ${r.status} ${r.request} ${r.bridge || ""}`.toLowerCase().includes(wanted)).slice(0, 500);
  $("request-rows").replaceChildren(...shown.map(r => h("tr", {}, cell("", stamp(r.arrived_us)), h("th", { scope: "row", className: "name", textContent: r.model, title: r.request }), cell("", r.key || "–"),
    cell(r.outcome === "ok" ? "" : "bad", `${r.status} ${r.outcome}${r.bridge ? " by " + r.bridge : ""}`), cell("n", r.leased_us ? span((r.leased_us - r.arrived_us) / 1e6) : "–"),
    cell("n", r.first_byte_us ? span((r.first_byte_us - r.arrived_us) / 1e6) : "–"), cell("n", span((r.ended_us - r.arrived_us) / 1e6)),
    cell("n", r.tokens_in ?? "–"), cell("n", r.tokens_out ?? "–"))));
  $("no-requests").textContent = shown.length ? "" : requests.length ? "None of the last requests has that in it." : "No request has been served yet.";
}
async function readRequests() { try { requests = await ask("/history/requests?last=500"); drawRequests(); } catch { /* `look` says that it is gone */ } }
$("request-filter").addEventListener("input", drawRequests);

const reading = { replica: null, next: null };
async function readLog() {
  const replica = $("log-of").value; if (!replica || !$("follow").checked && reading.replica === replica) return;
  if (reading.replica !== replica) { reading.replica = replica; reading.next = null; $("log").textContent = ""; }
  try {
    const piece = await ask(`/history/log?${new URLSearchParams(reading.next == null ? { replica } : { replica, start: reading.next })}`);
    if (reading.replica !== replica) return;
    const box = $("log"), low = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    if (piece.text) { box.append(piece.text); while (box.textContent.length > 400_000) box.firstChild.remove(); if (low) box.scrollTop = box.scrollHeight; }
    reading.next = piece.next;
  } catch (error) { $("log").textContent = error.message; }
}
$("log-of").addEventListener("change", readLog);
function choices(select, values, first) {  // keep what was chosen
  if (same(select, JSON.stringify(values))) return;
  const chosen = select.value;
  select.replaceChildren(...(first ? [h("option", { value: "", textContent: first })] : []), ...values.map(value => h("option", { value, textContent: value })));
  if (values.includes(chosen)) select.value = chosen;
}
