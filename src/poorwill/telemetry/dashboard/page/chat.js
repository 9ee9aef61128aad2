const chat = { messages: [], stop: null };
function chatNote() {  // what sending costs, before it is sent
  const model = $("chat-model").value, replicas = now.status.replicas.filter(r => r.model === model), rate = costOf(model)?.now_awake_nusd_h;
  const text = "A request like any other, by the key operator: limits, holds and the bill treat it so."
    + (replicas.length && replicas.every(r => r.state === "parked") ? ` ${model} is parked: it is woken` + (rate ? ` at ${money(rate)} an hour.` : ".") : "");
  if ($("chat-note").textContent !== text) $("chat-note").textContent = text;
}
function bubble(kind, text) {
  const words = h("span", { textContent: text }), told = h("small"), low = () => { $("said").scrollTop = $("said").scrollHeight; };
  $("said").append(h("div", { className: `said ${kind}` }, words, told)); low();
  return { told, add: more => { words.append(more); low(); } };
}
async function* lines(body) {  // of an event stream, as they come
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read(); if (done) return;
    const whole = (rest + value).split("\n"); rest = whole.pop();
    for (const line of whole) yield line.trim();
  }
}
async function hear(answer, said) {
  let text = "";
  for await (const line of lines(answer.body)) {
    if (line.startsWith(":") && !text) said.told.textContent = line.slice(1).replace("poorwill", "").trim() || "waiting";
    if (!line.startsWith("data:") || line.endsWith("[DONE]")) continue;
    const event = JSON.parse(line.slice(5)), delta = event.choices && event.choices[0] && event.choices[0].delta;
    if (event.error) throw new Error(event.error.message);
    const more = delta && (delta.content || delta.reasoning_content) || "";
    if (more) { text += more; said.add(more); said.told.textContent = ""; }
  }
  return text;
}
async function tellCost(said, request) {  // its row is in the ledger within seconds
  for (let tries = 0; request && tries < 40; tries++) {
    const cost = await ask(`/history/cost?${new URLSearchParams({ request, tries })}`).catch(() => null);
    if (!cost) { await new Promise(resolve => setTimeout(resolve, 250)); continue; }
    said.told.textContent = costText(cost);
    return;
  }
}
function costText(cost) {
  const parts = [["serving", cost.serving_nusd], ["its part of the wake", cost.wake_nusd], ["a hosted API", cost.hosted_nusd]].filter(([, nusd]) => nusd);
  const held = cost.leased_us ? cost.leased_us - cost.arrived_us : 0;
  return `${money(cost.serving_nusd + cost.wake_nusd + cost.hosted_nusd)}${parts.length ? ": " + parts.map(([what, nusd]) => `${money(nusd)} ${what}`).join(", ") : ""}; `
    + (held > 2000 ? `held ${span(held / 1e6)}, ` : "") + (cost.first_byte_us ? `first byte after ${span((cost.first_byte_us - cost.arrived_us) / 1e6)}, ` : "")
    + (cost.tokens_in == null && cost.tokens_out == null ? "no tokens known" : `${cost.tokens_in ?? "?"} tokens in, ${cost.tokens_out ?? "?"} out`);
}
async function send() {
  const content = $("chat-text").value.trim(), model = $("chat-model").value; if (!content || !model || chat.stop) return;
  chat.stop = new AbortController(); $("chat-send").disabled = true; $("chat-stop").disabled = false; $("chat-text").value = "";
  chat.messages.push({ role: "user", content }); bubble("mine", content);
  const said = bubble("theirs", ""), messages = chat.messages; let request = null;
  said.told.textContent = "sent";
  try {
    const body = JSON.stringify({ model, messages, stream: true, stream_options: { include_usage: true } });
    const answer = await fetch("/chat", { method: "POST", signal: chat.stop.signal, body, headers: { "content-type": "application/json" } });
    request = answer.headers.get("x-request-id");
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    messages.push({ role: "assistant", content: await hear(answer, said) });
  } catch (error) {
    said.add(h("span", { className: "bad", textContent: error.name === "AbortError" ? "Stopped." : error.message })); messages.pop();
  }
  said.told.textContent = "";
  chat.stop = null; $("chat-send").disabled = false; $("chat-stop").disabled = true;
  look(); await tellCost(said, request);
}
function forget() { if (chat.stop) chat.stop.abort(); chat.messages = []; $("said").replaceChildren(); chatNote(); }
$("chat-form").addEventListener("submit", event => { event.preventDefault(); send(); });
$("chat-text").addEventListener("keydown", event => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); send(); } });
$("chat-stop").addEventListener("click", () => chat.stop && chat.stop.abort());
$("chat-clear").addEventListener("click", forget); $("chat-model").addEventListener("change", forget);
