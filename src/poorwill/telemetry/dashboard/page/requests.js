let requests = [];
function drawRequests() {
  const wanted = $("request-filter").value.toLowerCase(), cell = (kind, text, label) => h("td", { className: kind, textContent: text, data: label ? { label } : {} });
  const shown = requests.filter(q => `${q.model} ${q.key} ${q.outcome} ${q.status} ${q.request} ${q.bridge || ""}`.toLowerCase().includes(wanted)).slice(0, 500);
  $("request-rows").replaceChildren(...shown.map(q => h("tr", {}, h("th", { scope: "row", className: "name", textContent: q.model, title: q.request }), cell("", stamp(q.arrived_us), "arrived"), cell("", q.key || "–", "key"),
    cell(q.outcome === "ok" ? "" : "bad", `${q.status} ${q.outcome}${q.bridge ? " by " + q.bridge : ""}`, "outcome"), cell("n", q.leased_us ? span((q.leased_us - q.arrived_us) / 1e6) : "–", "held"),
    cell("n", q.first_byte_us ? span((q.first_byte_us - q.arrived_us) / 1e6) : "–", "first byte"), cell("n", span((q.ended_us - q.arrived_us) / 1e6), "in all"),
    cell("n", q.tokens_in ?? "–", "tokens in"), cell("n", q.tokens_out ?? "–", "tokens out"))));
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
