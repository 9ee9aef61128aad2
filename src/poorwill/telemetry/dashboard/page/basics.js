const $ = id => document.getElementById(id);
function h(tag, props, ...children) {  // text goes in as text: nothing here parses markup
  const { style, data, aria, ...rest } = props || {};
  const made = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(style || {})) made.style.setProperty(name, value);
  for (const [name, value] of Object.entries(aria || {})) made.setAttribute(name, value);
  Object.assign(made.dataset, data || {});
  made.append(...children);
  return made;
}
function button(text, act, aria) {
  const made = h("button", { type: "button", textContent: text, aria });
  made.addEventListener("click", act);
  return made;
}
function svg(tag, props, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props || {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const span = s => s == null ? "–" : s < 0.0995 ? (s * 1000).toFixed(0) + " ms" : s < 10 ? s.toFixed(2) + " s" : s < 90 ? s.toFixed(0) + " s"
  : s < 5400 ? (s / 60).toFixed(0) + " min" : s < 172800 ? (s / 3600).toFixed(1) + " h" : (s / 86400).toFixed(1) + " d";
const clock = us => new Date(us / 1000).toLocaleTimeString();
const stamp = us => new Date(us / 1000).toLocaleString();
const when = us => { const at = new Date(us / 1000); return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }); };
const money = nusd => {
  const value = nusd / 1e9, small = Math.abs(value) < 1;
  const digits = value === 0 ? 2 : small ? Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))) : 2;
  const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: Math.max(2, digits) });
  return (value < 0 ? "-" : "") + (now.costs && now.costs.currency !== "USD" ? text + " " + now.costs.currency : "$" + text);
};
const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const plain = text => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");  // nothing in it reorders what is read
const size = n => n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : n >= 1e6 ? (n / 1e6).toFixed(0) + " MB" : (n / 1e3).toFixed(0) + " kB";
const now = { status: null, costs: null, wakes: null, ribbons: null, hours: 24, skew_us: 0, gone: null };
const now_us = () => Date.now() * 1000 + now.skew_us;

const GROUPS = [["serving", "serving"], ["linger", "linger"], ["floor", "floor"], ["wake", "waking"], ["park", "parking"],
  ["parked", "parked"], ["failed", "failed wake"], ["unknown", "unobserved"], ["bridge", "hosted API"]];
function group(cause) {
  if (cause.startsWith("wake")) return "wake";
  if (cause.startsWith("parked") || cause === "storage") return "parked";
  return { serving: "serving", linger: "linger", floor: "floor", drain: "park", park: "park", failed_wake: "failed",
    bridge: "bridge" }[cause] || "unknown";
}
let paints = null;
function paint(name) {
  paints ||= {};
  return paints[name] ||= (() => { const probe = h("i", { style: { color: `var(--${name})` } });
    document.body.append(probe); const colour = getComputedStyle(probe).color; probe.remove(); return colour; })();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paints = null; drawRibbons(); });

async function ask(path, options) {
  const answer = await fetch(path, options), text = await answer.text();
  if (answer.status === 401) location.reload();  // the session is over: the page asks for the key
  let body = null;
  try { body = JSON.parse(text); } catch { /* said below */ }
  if (!answer.ok) throw new Error(body && body.error ? body.error.message : `${answer.status} ${text.slice(0, 200)}`);
  return body;
}
function same(element, key) {  // whether what is shown is this already; the page is quiet while nothing changes
  const old = element.dataset.key; element.dataset.key = key; return old === key;
}
function toast(text) {
  $("toast").textContent = text; $("toast").hidden = false;
  clearTimeout(toast.timer); toast.timer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}
function dialog(title, body, buttons) {
  $("dialog-title").textContent = title; $("dialog-body").replaceChildren(body);
  const from = document.activeElement, name = CSS.escape(from.getAttribute("aria-label") || "");
  $("dialog").onclose = () => { if (name && !from.isConnected) document.querySelector(`[aria-label=${name}]`)?.focus(); };  // its row was drawn anew
  return new Promise(resolve => {
    const close = value => { $("dialog").close(); resolve(value); };
    $("dialog-buttons").replaceChildren(...buttons.map(([text, value, kind]) => Object.assign(button(text, () => close(value)), { className: kind || "" })));
    $("dialog").oncancel = () => resolve(null);
    $("dialog").showModal();
  });
}
async function explain(model, at_us) {
  const told = h("pre", { className: "told", textContent: "Asking the ledger.", tabIndex: 0 });
  const shown = dialog(`Why was ${model} paid at ${stamp(at_us)}?`, told, [["Close", null, "main"]]);
  try { told.textContent = (await ask(`/history/explain?${new URLSearchParams({ model, at_us: Math.floor(at_us) })}`)).join("\n"); }
  catch (error) { told.textContent = error.message; }
  return shown;
}
