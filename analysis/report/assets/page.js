"use strict";
// Tables that sort and filter.
for (const box of document.querySelectorAll(".sortable")) {
  const table = box.querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => { const text = row.cells[column].textContent, number = Number(text); return text !== "" && !Number.isNaN(number) ? number : text; };
  table.querySelectorAll("th").forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const falls = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    rows.sort((a, b) => { const x = value(a, column), y = value(b, column); return (typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1) * (falls ? -1 : 1); });
    body.append(...rows);
  }));
  box.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

// The explorer: one prompt, round by round.
for (const box of document.querySelectorAll(".explorer")) explore(box, JSON.parse(box.querySelector("script").textContent));

function explore(box, run) {
  const find = (name) => box.querySelector(`[data-part="${name}"]`);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const shade = d3.scaleSequential(d3.interpolateViridis).domain([0, 1]);
  const shown = (number) => number === null || number === undefined ? "-" : Number(number).toPrecision(4);
  let at = { prompt: 0, round: 0, token: 0 }, timer = null;
  const prompts = find("prompt");
  run.prompts.forEach((prompt, index) => prompts.append(new Option(`prompt ${prompt.prompt}`, index)));
  const last = () => run.prompts[at.prompt].rounds.length - 1;

  // The graph.
  const side = 360, margin = 30, places = run.places;
  const scale = (axis) => { const values = places.map((place) => place[axis]), low = Math.min(...values), high = Math.max(...values); return (value) => high > low ? margin + (side - 2 * margin) * (value - low) / (high - low) : side / 2; };
  const x = scale(0), y = scale(1), radius = Math.max(4, Math.min(13, 150 / Math.sqrt(places.length) / 2));
  const graph = d3.select(find("graph")).attr("viewBox", `0 0 ${side} ${side}`);
  const edges = graph.append("g").selectAll("line").data(run.edges).join("line").attr("class", "edge")
    .attr("x1", (d) => x(places[d[0]][0])).attr("y1", (d) => side - y(places[d[0]][1])).attr("x2", (d) => x(places[d[1]][0])).attr("y2", (d) => side - y(places[d[1]][1]));
  const tokens = graph.append("g").selectAll("g").data(run.names).join("g").attr("class", "token").attr("role", "button").attr("tabindex", (_, i) => i ? -1 : 0)
    .attr("transform", (_, i) => `translate(${x(places[i][0])},${side - y(places[i][1])})`)
    .on("click", (_, name) => choose(run.names.indexOf(name))).on("mouseenter", (_, name) => choose(run.names.indexOf(name)));
  tokens.append("circle").attr("r", radius);
  tokens.append("title");
  if (run.names.length <= 24) tokens.append("text").attr("y", -radius - 3).text((name) => name.slice(0, 8));

  // The tree of the prior: a node for each branch of each level, the root at the left.
  const levels = run.branches.length ? run.branches[0].length : 0, atoms = run.branches.length || run.atoms;
  const tree = d3.select(find("tree")), width = 360, height = Math.max(150, Math.min(420, 18 * atoms + 20));
  tree.attr("viewBox", `0 0 ${width} ${height}`);
  const nodes = [{ level: 0, name: 0, atoms: d3.range(atoms), parent: null }];
  for (let level = 1; level <= levels; level++) for (const name of new Set(run.branches.map((path) => path[level - 1]))) {
    const own = d3.range(atoms).filter((atom) => run.branches[atom][level - 1] === name);
    nodes.push({ level, name, atoms: own, parent: nodes.findIndex((node) => node.level === level - 1 && node.atoms.includes(own[0])) });
  }
  if (!levels) d3.range(atoms).forEach((atom) => nodes.push({ level: 1, name: atom, atoms: [atom], parent: 0 }));
  const depth = Math.max(1, levels);
  const across = (node) => 16 + (width - 126) * node.level / depth, down = (node) => 12 + (height - 24) * (d3.mean(node.atoms) + .5) / atoms;
  const branches = tree.append("g").selectAll("path").data(nodes.slice(1)).join("path").attr("class", "branch")
    .attr("d", (node) => { const from = nodes[node.parent]; return `M${across(from)},${down(from)}C${(across(from) + across(node)) / 2},${down(from)} ${(across(from) + across(node)) / 2},${down(node)} ${across(node)},${down(node)}`; });
  const masses = tree.append("g").selectAll("circle").data(nodes).join("circle").attr("class", "mass").attr("cx", across).attr("cy", down);
  const labels = tree.append("g").selectAll("text").data(nodes.filter((node) => node.level === depth)).join("text").attr("class", "label").attr("x", (node) => across(node) + 14).attr("y", (node) => down(node) + 3);

  function choose(token) { at.token = token; show(); }
  function go(round) { at.round = Math.max(0, Math.min(last(), round)); show(); }
  function stop() { clearInterval(timer); timer = null; find("play").textContent = "Play"; find("play").setAttribute("aria-pressed", "false"); }
  find("back").addEventListener("click", () => { stop(); go(at.round - 1); });
  find("next").addEventListener("click", () => { stop(); go(at.round + 1); });
  find("round").addEventListener("input", (event) => { stop(); go(Number(event.target.value)); });
  find("play").addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (at.round === last()) go(0);
    find("play").textContent = "Pause"; find("play").setAttribute("aria-pressed", "true");
    timer = setInterval(() => { if (at.round === last()) stop(); else go(at.round + 1); }, 1200);
  });
  prompts.addEventListener("change", () => { stop(); at.prompt = Number(prompts.value); go(Math.min(at.round, last())); });
  find("graph").addEventListener("keydown", (event) => {
    const turn = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!turn) return;
    event.preventDefault();
    choose((at.token + turn + run.names.length) % run.names.length);
    tokens.nodes()[at.token].focus();
  });

  function show() {
    const prompt = run.prompts[at.prompt], round = prompt.rounds[at.round], chosen = round[at.token], spoke = at.round > 0;
    const truth = (token) => token.belief && prompt.true_atom !== null ? token.belief[prompt.true_atom] : null;
    const slider = find("round");
    slider.max = last(); slider.value = at.round;
    find("back").disabled = at.round === 0; find("next").disabled = at.round === last();
    find("status").textContent = `Round ${at.round} of ${last()}`;
    const heard = new Set(run.edges.filter((edge) => edge[1] === at.token).map((edge) => edge[0]));
    edges.classed("heard", (edge) => spoke && edge[1] === at.token);
    tokens.classed("chosen", (_, i) => i === at.token).classed("spoke", (_, i) => spoke && heard.has(i) && round[i].said !== null)
      .attr("tabindex", (_, i) => i === at.token ? 0 : -1).attr("data-true", (_, i) => truth(round[i])).attr("data-error", (_, i) => round[i].error)
      .attr("aria-label", (name, i) => `token ${name}, error ${shown(round[i].error)}, belief in the truth ${shown(truth(round[i]))}`);
    const fill = (_, i) => truth(round[i]) === null ? shade(Math.max(0, 1 - round[i].error)) : shade(truth(round[i]));
    (calm ? tokens.select("circle") : tokens.select("circle").transition().duration(300)).attr("fill", fill);
    tokens.select("title").text((name, i) => `${name}: ${round[i].said === null ? "said nothing" : `said ${round[i].said} on code ${round[i].asked}`}`);
    const mass = (node) => chosen.belief ? d3.sum(node.atoms, (atom) => chosen.belief[atom]) : 0;
    masses.attr("r", (node) => 2 + 9 * Math.sqrt(mass(node))).attr("fill", (node) => shade(mass(node))).attr("data-mass", mass);
    branches.classed("true", (node) => prompt.true_atom !== null && node.atoms.includes(prompt.true_atom));
    labels.text((node) => chosen.belief ? `${(100 * mass(node)).toFixed(1)} %${node.atoms.includes(prompt.true_atom) ? " (true)" : ""}` : "");
    find("token").textContent = `Token ${run.names[at.token]}`;
    find("said").textContent = !spoke ? "Nothing was said yet." : chosen.said === null ? "It said nothing." : `It asked code ${chosen.asked} and said ${chosen.said}${chosen.clipped ? ", clipped" : ""}.`;
    find("knows").textContent = `Error |w - w_i|² ${shown(chosen.error)}; ${chosen.right} of ${run.levels} levels right; ${shown(chosen.entropy)} bits unknown; heard ${Number(shown(chosen.heard))} tokens.`;
    find("theory").textContent = `Mean over prompts: risk ${shown(run.risk[at.round])}${run.theory[at.round] === undefined ? "" : `, theory ${shown(run.theory[at.round])}`}.`;
    const list = find("heard");
    list.replaceChildren();
    if (spoke) for (const sender of heard) {
      const item = document.createElement("li");
      item.textContent = round[sender].said === null ? `${run.names[sender]} said nothing` : `${run.names[sender]} said ${round[sender].said} on code ${round[sender].asked}`;
      list.append(item);
    }
  }
  show();
}
