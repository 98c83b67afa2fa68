"""What the page of a graph looks like and how it answers: its style sheet and its script."""

from lib.figures import packed

STYLE = """
  :root { --ink: #222; --faint: #595959; --paper: #fff; --line: #ccc; --field: #fff; color-scheme: light; }
  :root.dark { --ink: #e8e8e8; --faint: #b0b0b0; --paper: #1c1c1c; --line: #555; --field: #2b2b2b; color-scheme: dark; }
  body { font: 14px/1.4 sans-serif; margin: 0; padding: 12px; color: var(--ink); background: var(--paper); }
  h1 { font-size: 17px; margin: 0 0 2px; } h2 { font-size: 14px; margin: 0; }
  p { margin: 2px 0 8px; } .faint, dt { color: var(--faint); } [hidden] { display: none !important; }
  .controls { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 6px 20px; margin: 6px 0; }
  .controls label { display: block; font-weight: bold; font-size: 13px; }
  .controls output { font-weight: normal; }
  .controls select, .controls input { width: 100%; box-sizing: border-box; margin: 2px 0; }
  select, button { font: inherit; font-weight: normal; color: inherit; background: var(--field); padding: 3px 6px;
    border: 1px solid var(--line); border-radius: 4px; }
  button { cursor: pointer; margin: 2px 6px 2px 0; padding: 4px 10px; }
  summary { cursor: pointer; }
  .both { display: grid; grid-template-columns: minmax(0, 1fr) 270px; gap: 24px; align-items: start; margin-top: 10px; }
  #groups { display: grid; font-weight: bold; font-size: 13px; }
  #groups span::before { content: attr(data-letter); display: inline-block; width: 15px; height: 15px; border-radius: 50%;
    text-align: center; font-size: 10px; line-height: 15px; color: #000; background: var(--own); margin-right: 5px; }
  #graph { width: 100%; } #graph svg, #curve svg { display: block; max-width: 100%; }
  #graph:focus-visible { outline: 2px solid #2b83ba; outline-offset: 2px; }
  #curve { width: 100%; } #picture { max-width: 100%; display: block; margin: 6px 0; }
  dl { display: grid; grid-template-columns: auto auto; gap: 0 12px; margin: 6px 0; width: fit-content; } dd { margin: 0; }
  pre { overflow-x: auto; background: var(--field); border: 1px solid var(--line); padding: 8px; font-size: 12px; }
  .said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  @media (max-width: 760px) { .both { grid-template-columns: minmax(0, 1fr); } .controls { gap: 4px 12px; }
    .controls { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
    #groups { font-size: 11px; } #groups span { overflow-wrap: anywhere; } #groups span::before { display: block; } }
  #vg-tooltip-element { color: var(--ink) !important; background: var(--field) !important; }
  #vg-tooltip-element td.key { color: var(--faint) !important; }
"""

SCRIPT = r"""
(async () => {
  const whole = document.documentElement.outerHTML;  // before anything is drawn: what "save the page" saves
  const $ = id => document.getElementById(id), root = document.documentElement;
  %UNPACKED%

  // -- the ground it stands on: dark where JupyterLab is, else as the system says
  const outside = () => { try { return parent === window ? null : parent.document.body; } catch { return null; } };
  const themed = () => {
    const lab = outside()?.dataset.jpThemeLight;
    const paper = outside()?.matches("body.jp-Notebook");  // a report, which is white
    const dark = lab ? lab === "false" : !paper && matchMedia("(prefers-color-scheme: dark)").matches;
    root.classList.toggle("dark", dark);
  };
  themed();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  if (outside()) new MutationObserver(themed).observe(outside(), { attributeFilter: ["data-jp-theme-light"] });
  const high = () => Math.ceil(document.body.getBoundingClientRect().height) + 4;
  new ResizeObserver(() => {  // a frame of its own height, where the page around it may be reached; else that one is told
    if (outside() && window.frameElement) window.frameElement.style.height = `${high()}px`;
    else if (parent !== window) parent.postMessage({ height: high() }, "*");
  }).observe(document.body);

  // -- what is drawn
  if (!$("library").textContent) {
    $("told").textContent = "What draws this page lies beside it, in the file assets/vega.js two folders up, and is not there.";
    return;
  }
  const script = document.createElement("script");
  script.textContent = await unpacked("library");
  document.head.append(script);
  const { spec, curve, told, pictures, views, attacks, strengths, unit } = JSON.parse(await unpacked("graphs"));
  const { neurons, edges } = spec.datasets, byId = new Map(neurons.map(n => [n.id, n]));
  const state = Object.fromEntries(spec.params.map(p => [p.name, p.value]));
  delete state.cells;
  Object.assign(state, JSON.parse($("state").textContent));
  for (const p of spec.params) if (p.name in state) p.value = state[p.name];
  const options = { actions: false, renderer: "svg", tooltip: { disableDefaultStyle: false } };
  const graph = (await vegaEmbed("#graph", spec, options)).view;
  const line = (await vegaEmbed("#curve", curve, options)).view;
  new ResizeObserver(() => window.dispatchEvent(new Event("resize"))).observe($("graph"));

  const here = () => neurons.filter(n => n.view === state.view && n.attack === state.attack);
  const number = v => v === null || v === undefined ? "not known" : String(+v.toPrecision(3));
  const at = i => i ? String(strengths[i - 1]) : "0 (no attack)";
  const row = () => told.find(t => t.view === state.view && t.attack === state.attack && t.s === state.strength);

  const tell = () => {
    const own = views[state.view], said = row();
    $("title").textContent = own.title;
    $("told").textContent = `${attacks[state.attack]}, ${said.told}`;
    $("counted").textContent = own.counted;
    $("alternative").textContent = `${own.title}. ${attacks[state.attack]}, ${said.told}. ${said.alt}`;
    $("groups").style.gridTemplateColumns = own.columns.map(c => `minmax(0, ${c}fr)`).join(" ");
    $("code").textContent = own.code;
    $("has-code").hidden = !own.code;
    $("shapes").hidden = state.compare !== "yes";
    for (const [name, of] of [["strength", at], ["weak", at], ["topNeurons", v => `${v} %`], ["topEdges", v => `${v} %`]]) {
      $(`${name}-value`).textContent = of(state[name]);
      $(name).setAttribute("aria-valuetext", of(state[name]));
    }
    $("weak").disabled = state.compare !== "yes";
    for (const name of [...menus, ...ranges]) $(name).value = state[name];
    card();
  };
  const card = () => {
    const own = here(), n = own.find(n => n.key === state.at) ?? own[0];
    if (!n) return;
    const pinned = state.pinned.includes(n.key);
    $("name").textContent = n.name;
    $("group").textContent = n.group + (pinned ? ", pinned: its edges are drawn" : "");
    $("picture").hidden = !n.picture;
    $("what").hidden = !n.picture;
    $("what").textContent = views[state.view].pictures;
    if (n.picture) { $("picture").src = pictures[n.picture]; $("picture").alt = `${views[state.view].pictures}: ${n.name}`; }
    const values = [[`at strength ${at(state.strength)}`, n.v[state.strength]], ["without attack", n.v[0]],
      ["clean, target class", n.t], ["vulnerability", n.vulnerability]];
    $("numbers").replaceChildren(...values.flatMap(([what, v]) => {
      const [dt, dd] = ["dt", "dd"].map(t => document.createElement(t));
      [dt.textContent, dd.textContent] = [what, number(v)];
      if (what === "vulnerability") dt.title = "how far its rank in the layer moves, over the strength, summed over strengths";
      return [dt, dd];
    }));
    const path = n.v.map((v, i) => ({ v, i, s: i ? strengths[i - 1] : 0 }));
    const clean = [{ level: n.v[0], line: "source class" }, { level: n.t, line: "target class" }];
    const levels = clean.filter(l => l.level !== null);
    line.data("path", path).data("levels", levels).signal("strength", state.strength).resize().runAsync();
  };
  const set = (name, value) => {
    state[name] = value;
    if (name === "view" || name === "attack") {
      const own = here();
      if (!own.some(n => n.key === state.at)) { state.at = own[0].key; graph.signal("at", state.at); }
    }
    graph.signal(name, value).runAsync();
    tell();
  };

  // -- controls, pointer, keys
  const menus = ["view", "attack", "by", "show", "compare"], ranges = ["strength", "weak", "topNeurons", "topEdges"];
  for (const name of menus) $(name).addEventListener("input", e => set(name, e.target.value));
  for (const name of ranges) $(name).addEventListener("input", e => set(name, +e.target.value));
  const pin = key => set("pinned", state.pinned.includes(key) ? state.pinned.filter(k => k !== key) : [...state.pinned, key]);
  graph.addEventListener("pointerover", (_, item) => { if (item?.datum?.key) set("at", item.datum.key); });
  graph.addEventListener("click", (_, item) => { if (item?.datum?.key) { set("at", item.datum.key); pin(item.datum.key); } });
  $("graph").addEventListener("keydown", e => {
    const own = here(), n = own.find(n => n.key === state.at) ?? own[0];
    const beside = own.filter(m => m.row === n.row).sort((a, b) => a.x - b.x), place = beside.indexOf(n);
    const rows = [...new Set(own.map(m => m.row))].sort((a, b) => a - b);
    const nearest = r => own.filter(m => m.row === r).sort((a, b) => Math.abs(a.x - n.x) - Math.abs(b.x - n.x))[0];
    const to = { ArrowRight: () => beside[place + 1], ArrowLeft: () => beside[place - 1], Home: () => beside[0],
      End: () => beside.at(-1), ArrowUp: () => nearest(rows[rows.indexOf(n.row) - 1]),
      ArrowDown: () => nearest(rows[rows.indexOf(n.row) + 1]) }[e.key];
    if (to) { const next = to(); if (next) set("at", next.key); }
    else if (e.key === "Enter" || e.key === " ") pin(n.key);
    else if (e.key === "Escape") set("pinned", []);
    else return;
    e.preventDefault();
  });

  // -- what can be taken away
  const save = (end, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `${views[state.view].title.replace(/[^a-z0-9]+/gi, "-").replace(/^-|-$/g, "").toLowerCase()}.${end}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const cell = v => /[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : v;
  const csv = () => {
    const head = ["graph", "attack", `strength (${unit})`, "layer", "channel", "group", "next layer", "next channel",
      "next group", "influence without attack (activation)", "influence under attack (activation)", "counted over"];
    const rows = edges.filter(e => byId.get(e.a)?.view === state.view && byId.get(e.a)?.attack === state.attack).map(e => {
      const [a, b] = [byId.get(e.a), byId.get(e.b)];
      return [views[state.view].title, attacks[state.attack], state.strength ? strengths[state.strength - 1] : 0, a.layer,
        a.channel, a.group, b.layer, b.channel, b.group, e.w[0], e.w[state.strength], views[state.view].counted];
    });
    return [head, ...rows].map(r => r.map(cell).join(",")).join("\n") + "\n";
  };
  const parameters = () => {
    const { title, counted, settings, code, layers } = views[state.view];
    const shown = { attack: attacks[state.attack], strength: state.strength ? strengths[state.strength - 1] : 0,
      highlighted: `the ${state.topNeurons} % most ${state.by} neurons, ${state.topEdges} % of their edges`, told: row().told };
    return JSON.stringify({ title, counted, shown, "unit of strength": unit, strengths, layers, ...settings, code }, null, 1);
  };
  const page = () => `<!DOCTYPE html>\n${whole}`.replace(/(id="state">)[^<]*/,
    (_, before) => before + JSON.stringify(state).replaceAll("<", "\\u003c"));
  $("save-page").addEventListener("click", () => save("html", "text/html", page()));
  $("save-edges").addEventListener("click", () => save("csv", "text/csv", csv()));
  $("save-parameters").addEventListener("click", () => save("json", "application/json", parameters()));
  $("save-picture").addEventListener("click", async () =>
    save("svg", "image/svg+xml", (await graph.toSVG()).replace("<svg ", '<svg style="color: #222; background: #fff" ')));
  $("copy").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText($("code").textContent); $("copy").textContent = "copied"; }
    catch { getSelection().selectAllChildren($("code")); $("copy").textContent = "selected: press Ctrl+C"; }
  });
  if (innerWidth < 760) $("more").open = false;  // the graph shall not lie below the fold
  tell();
  root.dataset.ready = "yes";
})().catch(error => {
  const told = document.getElementById("told");
  told.textContent = `The graph cannot be drawn here (${error.message}). It needs a browser of 2023 or newer, with scripts.`;
});
""".replace("%UNPACKED%", packed.SCRIPT)
