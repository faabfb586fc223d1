"use strict";
// Data of one estimate, and what all pictures share. Text of the model is set as text only:
// by textContent and by attributes that hold no code.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

window.addEventListener("error", () => {
  document.documentElement.dataset.failed = "yes";
});

// Of a row of `data.layers`.
const [NAME, OP, PRECISION, KIND, LIMIT, TIME, MACS, DENSE, VECTOR, SPECIAL, L2, DDR, ENERGY] =
  Array(13).keys();
for (const row of data.layers) row[NAME] = data.names[row[NAME]];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const PREFIXES = [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1],
  ["m", 1e-3], ["µ", 1e-6]];

// Three digits, a prefix and the unit.
function si(value, unit) {
  if (!value) return `0 ${unit}`;
  const [prefix, scale] = PREFIXES.find(([, s]) => Math.abs(value) >= s) ?? ["n", 1e-9];
  return `${Number((value / scale).toPrecision(3))} ${prefix}${unit}`;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const unitClass = (unit) => unit.replace(" ", "-");

// "spu epilogue" has a colour of its own; what is limited by L2 too; else a unit's.
function limitClass(limit) {
  const [unit, what] = limit.split(" ");
  return !unit ? "none" : what === "epilogue" || what === "l2" ? what : unit;
}

const tip = $("tip");

function showTip(lines, x, y) {
  tip.replaceChildren(...lines.map((line, n) => {
    const row = make("div", n ? {} : { class: "first" });
    row.textContent = line;
    return row;
  }));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const beside = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
  const below = y + 16 + box.height > innerHeight ? y - 12 - box.height : y + 16;
  tip.style.left = `${Math.max(4, beside)}px`;
  tip.style.top = `${Math.max(4, below)}px`;
}

function hideTip() {
  tip.hidden = true;
}

function layerLines(row) {
  const macs = row[DENSE]
    ? [`${si(row[MACS], "MAC")}, ${si(row[DENSE], "MAC")} unpruned`]
    : [];
  const others = [
    [row[VECTOR], "vector operations"], [row[SPECIAL], "special operations"],
  ].filter(([count]) => count).map(([count, what]) => `${si(count, "")} ${what}`);
  return [
    row[NAME] || "(of no node)",
    `${row[OP]}, ${row[PRECISION]}`,
    `${si(row[TIME], "s")}, ${percent(data.total ? row[TIME] / data.total : 0)} of all`,
    `limited by ${row[LIMIT] || "nothing"}`,
    ...macs, ...others,
    `L2 ${si(row[L2], "B")}, DDR ${si(row[DDR], "B")}, ${si(row[ENERGY], "J")}`,
  ];
}

// An SVG as a file of its own: with the page's style, so that it is light or dark as the reader is.
function pictureOf(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("width", svg.viewBox.baseVal.width);
  const style = draw("style", {}, document.querySelector("style").textContent);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.prepend(style, draw("rect", { width: "100%", height: "100%", fill: "var(--card)" }));
  return new XMLSerializer().serializeToString(copy);
}

function saveButton(id, chart, name) {
  $(id).addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([pictureOf(chart.querySelector("svg"))],
      { type: "image/svg+xml" }));
    make("a", { href: url, download: `${name}.svg` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
}

function meter(name, share, cls, figure, wide) {
  const fill = make("div", { class: `fill ${cls}` });
  fill.style.width = `${100 * Math.min(1, share)}%`;
  return make("div", { class: wide ? "meter wide" : "meter" },
    make("span", {}, name), make("div", { class: "track" }, fill),
    make("span", { class: "figure" }, figure));
}

(function totals() {
  const [chips, cores] = data.cores;
  const chosen = data.options;
  $("settings").textContent = [
    `batch ${data.batch} on ${chips} × ${cores} cores, ${data.coreBatch} a pass`,
    ...Object.entries(data.extents).filter(([name]) => name !== "batch").map(([n, v]) => `${n} ${v}`),
    ...(chosen.cores === "batch" ? [] : [`cores ${chosen.cores}`]),
    ...(chosen.zeros ? [`zeros skipped: ${chosen.zeros}`] : []),
    ...(chosen.real === null ? [] : [`real rows: ${chosen.real}`]),
    ...(chosen.wire ? [`${chosen.wire} on the host link`] : []),
    ...(chosen.host ? [] : ["inputs and outputs in the card's memory"]),
  ].join("; ");
  const tiles = [
    ["throughput", `${Math.round(data.throughput).toLocaleString("en")} /s`, "samples, without end"],
    ["latency", si(data.latency, "s"), "of one batch on an idle card"],
    ["efficiency", data.energy ? `${Number((1 / data.energy).toPrecision(3)).toLocaleString("en")} /J` : "–",
      `${si(data.energy, "J")} a sample`],
    ["power", `${data.power.toFixed(0)} W`, `of ${data.tdp} W`],
    ["busiest unit", data.bottleneck, percent(data.busy[data.bottleneck])],
  ];
  for (const [name, value, more] of tiles) {
    const over = name === "power" && data.power > data.tdp;
    $("totals").append(make("div", { class: over ? "tile over" : "tile" },
      make("div", { class: "name" }, name), make("div", { class: "value" }, value),
      make("div", { class: "more" }, over ? `${more}: over` : more)));
  }
  for (const [unit, share] of Object.entries(data.busy)) {
    $("units").append(meter(unit, share, unitClass(unit), percent(share)));
  }
  const classes = { attention: "noc", VPU: "vpu", copies: "dma", "first layer": "sfu" };
  for (const [kind, share] of Object.entries(data.kinds)) {
    const cap = share ? `${percent(share)} · ${Number((1 / share).toPrecision(3))}×` : "0%";
    $("kinds").append(meter(kind, share, classes[kind] ?? "spu", cap, true));
  }
  const most = Math.max(...Object.values(data.bytes), 1);
  for (const [level, size] of Object.entries(data.bytes)) {
    const cls = { host: "host-in", ddr: "dma" }[level] ?? level;
    $("bytes").append(meter(level, size / most, cls, si(size, "B"), true));
  }
})();
