const legend = () => h("div", { className: "legend", aria: { "aria-hidden": "true" } }, ...GROUPS.map(([name, text]) => h("span", {}, h("i", { style: { background: `var(--${name})` } }), text)));
$("legend").replaceWith(legend());
function drawRibbons() {
  const data = now.ribbons; if (!data) return;
  const box = $("ribbons"), old = new Map([...box.children].map(one => [one.dataset.replica, one]));
  const rank = new Map(now.status?.replicas.map((r, at) => [r.replica, at])), last = rank.size;
  const rows = data.rows.sort((a, b) => (rank.get(a.replica) ?? last) - (rank.get(b.replica) ?? last)).map(row => { const one = old.get(row.replica) || ribbon(row.replica); one.row = row; return one; });
  rows.push(old.get("") || h("div", { className: "ribbon", data: { replica: "" } }, h("span"), h("div", { className: "axis" })));
  if (rows.length !== box.children.length || rows.some((one, at) => box.children[at] !== one)) box.replaceChildren(...rows);
  for (const one of rows.slice(0, -1)) { one.firstChild.textContent = nameOf(one.row); one.firstChild.title = one.row.replica; describe(one); drawn.observe(one); if (seen.has(one)) paintRibbon(one); }
  const ticks = [0, .25, .5, .75, 1].map(at => new Date((data.from_us + at * (data.to_us - data.from_us)) / 1000));
  const text = at => data.to_us - data.from_us > 1.8e11 ? at.toLocaleDateString(undefined, { weekday: "short", day: "numeric" }) : at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(data.to_us - data.from_us < 3.6e8 ? { second: "2-digit" } : {}) });
  rows.at(-1).lastChild.replaceChildren(...ticks.map(at => h("span", { textContent: text(at) })));
}
const seen = new Set();  // the ribbons on the screen, which alone are painted
const drawn = new IntersectionObserver(found => found.forEach(one => {
  if (!one.isIntersecting) return seen.delete(one.target);
  seen.add(one.target); paintRibbon(one.target);
}), { rootMargin: "800px" });
new ResizeObserver(() => drawRibbons()).observe($("ribbons"));
const places = row => row.stretches.map(([from, to, cause, nusd_h, joined]) => ({ from: Math.max(from, now.ribbons.from_us), to: Math.min(to ?? now.ribbons.to_us, now.ribbons.to_us), began: from, ended: to, cause, nusd_h, joined })).filter(p => p.to > p.from);
function paintRibbon(one) {
  const canvas = one.lastChild, width = canvas.clientWidth, ratio = devicePixelRatio || 1; if (!width) return;
  const { from_us, to_us } = now.ribbons, x = us => (us - from_us) / (to_us - from_us) * width;
  if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(26 * ratio); }
  const pen = canvas.getContext("2d"); pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.clearRect(0, 0, width, 26);
  for (const p of places(one.row)) {
    const kind = group(p.cause), low = kind === "parked";
    pen.fillStyle = paint(kind); pen.fillRect(x(p.from), low ? 15 : 2, Math.max(x(p.to) - x(p.from), .8), low ? 9 : 22);
  }
  for (const [began, , ok] of one.row.wakes) if (began >= from_us) {
    pen.fillStyle = paint(ok === false ? "failed" : "wake"); pen.beginPath(); pen.moveTo(x(began) - 3, 0); pen.lineTo(x(began) + 3, 0); pen.lineTo(x(began), 6); pen.fill(); }
  if (one.at != null && document.activeElement === canvas) { pen.fillStyle = paint("ink"); pen.fillRect(x(one.at) - 1, 0, 2, 26); }
}
const saying = (row, p) => `${row.model}: ${p.cause}, ${stamp(p.began)} ${p.ended == null ? "and on" : "to " + clock(p.ended)} (${span(((p.ended ?? now_us()) - p.began) / 1e6)}), `
  + `${money(p.nusd_h)} an hour, ` + (p.joined ? `with ${p.joined === 1 ? "a stretch" : p.joined + " stretches"} too short to be seen here` : money(p.nusd_h * ((p.ended ?? now_us()) - p.began) / 3.6e9));
function describe(one) {
  const canvas = one.lastChild, all = places(one.row), found = all.findIndex(p => p.from <= one.at && one.at < p.to);
  const here = found < 0 ? all.length - 1 : found, p = one.at != null && found < 0 ? undefined : all[here];
  canvas.setAttribute("aria-label", `${one.row.model}, since ${stamp(now.ribbons.from_us)}`);
  canvas.setAttribute("aria-valuemin", 0); canvas.setAttribute("aria-valuemax", Math.max(all.length - 1, 0));
  canvas.setAttribute("aria-valuenow", Math.max(here, 0)); canvas.setAttribute("aria-valuetext", p ? saying(one.row, p) : "nothing is known of that time");
  return { all, here, p };
}
function ribbon(replica) {
  const canvas = h("canvas", { tabIndex: 0, aria: { role: "slider" } }), one = h("div", { className: "ribbon", data: { replica } }, h("span"), canvas);
  const at = event => now.ribbons.from_us + (event.offsetX / canvas.clientWidth) * (now.ribbons.to_us - now.ribbons.from_us);
  const show = () => { const { p } = describe(one); $("hover").textContent = p ? saying(one.row, p) : "Nothing is known of that time."; paintRibbon(one); };
  canvas.addEventListener("pointermove", event => { one.at = at(event); show(); });
  canvas.addEventListener("click", event => explain(one.row.model, Math.min(at(event), now_us())));
  canvas.addEventListener("focus", show); canvas.addEventListener("blur", () => paintRibbon(one));
  canvas.addEventListener("keydown", event => {
    const { all, here } = describe(one);
    const go = { ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1, Home: 0, End: all.length - 1 }[event.key];
    if (go != null && all.length) { event.preventDefault(); const p = all[Math.min(Math.max(go, 0), all.length - 1)]; one.at = (p.from + p.to) / 2; show(); }
    if (event.key === "Enter" && all[here]) explain(one.row.model, (all[here].from + all[here].to) / 2);
  });
  return one;
}
async function readRibbons() {
  try {
    now.ribbons = await ask(`/history/ribbons?hours=${now.hours}`);
    drawRibbons();
  } catch { /* `look` says that it is gone */ }
}
function chooseWindow(hours) {
  now.hours = hours;
  for (const each of $("window").children) each.setAttribute("aria-pressed", Number(each.dataset.hours) === hours);
}
chooseWindow(now.hours);
for (const button of $("window").children) button.addEventListener("click", () => { chooseWindow(Number(button.dataset.hours)); readRibbons(); });
