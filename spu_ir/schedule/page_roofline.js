// Unpruned multiply-accumulates a second over those for a byte: both axes logarithmic.
(function roofline() {
  const { points, ceilings, bandwidth } = data.roofline;
  const chart = $("roofline");
  const rows = new Map(data.places.map((place, n) => [place, data.layers[n]]));
  const LEFT = 62, RIGHT = 14, TOP = 14, BOTTOM = 44;
  let level = "l2", width = 0;

  function note(shown) {
    const all = points.length;
    const unseen = all - shown.length;
    const whose = shown.length === all && all ? "Every step that multiplies" : `${shown.length} of ${all} steps that multiply`;
    const why = unseen ? ` The other ${unseen} move no bytes of ${level.toUpperCase()}.` : "";
    $("roofline-note").textContent = all
      ? `${whose}, at the rate of the ${data.cores[0] * data.cores[1]} cores in use; multiply-accumulates are the unpruned model's, `
        + `so sparsity raises the ceiling. Area: share of time; colour: what limits it.${why}`
      : "No step multiplies.";
  }

  function build() {
    width = Math.max(300, chart.clientWidth);
    const height = width < 600 ? 380 : 440;
    const column = level === "l2" ? 2 : 3;
    const shown = points.filter((p) => p[column] > 0);
    note(shown);
    const band = bandwidth[level];
    const tops = ceilings.map(([, , macs]) => macs);
    const xs = [...shown.map((p) => p[column]), ...tops.map((macs) => macs / band)];
    const ys = [...shown.map((p) => p[1]), ...tops];
    const low = (values) => 10 ** Math.floor(Math.log10(Math.min(...values)) - 0.15);
    const high = (values) => 10 ** (Math.log10(Math.max(...values)) + 0.35);
    const [x0, x1, y0, y1] = [low(xs), high(xs), low(ys), high(ys)];
    const X = (v) => LEFT + (Math.log10(v / x0) / Math.log10(x1 / x0)) * (width - LEFT - RIGHT);
    const Y = (v) => height - BOTTOM - (Math.log10(v / y0) / Math.log10(y1 / y0)) * (height - TOP - BOTTOM);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
      "aria-label": `Roofline by bytes of ${level.toUpperCase()}` });
    for (let v = x0; v <= x1 * 1.001; v *= 10) {
      svg.append(draw("line", { class: "tick", x1: X(v), x2: X(v), y1: TOP, y2: height - BOTTOM }));
      svg.append(draw("text", { x: X(v), y: height - BOTTOM + 17, "text-anchor": "middle" }, si(v, "").trim()));
    }
    for (let v = y0; v <= y1 * 1.001; v *= 10) {
      svg.append(draw("line", { class: "tick", x1: LEFT, x2: width - RIGHT, y1: Y(v), y2: Y(v) }));
      svg.append(draw("text", { x: LEFT - 7, y: Y(v) + 4, "text-anchor": "end" }, si(v, "").trim()));
    }
    svg.append(draw("path", { class: "axis", d: `M${LEFT} ${TOP}V${height - BOTTOM}H${width - RIGHT}` }));
    svg.append(draw("text", { x: (LEFT + width) / 2, y: height - 8, "text-anchor": "middle" },
      `MAC for a byte of ${level.toUpperCase()}`));
    svg.append(draw("text", { x: 13, y: height / 2, "text-anchor": "middle",
      transform: `rotate(-90 13 ${height / 2})` }, "MAC a second"));
    const names = draw("g", {}); // Over the dots.
    roofs(svg, names, { X, Y, x0, x1, y0, band });
    dots(svg, shown, column, X, Y);
    svg.append(names);
    chart.replaceChildren(svg);
  }

  function roofs(svg, names, { X, Y, x0, x1, y0, band }) {
    const top = Math.max(...ceilings.map(([, , macs]) => macs));
    const from = Math.max(x0, y0 / band);
    svg.append(draw("line", { class: "bound", x1: X(from), y1: Y(from * band), x2: X(top / band), y2: Y(top) }));
    const slope = Math.atan2(Y(top) - Y(from * band), X(top / band) - X(from)) * 180 / Math.PI;
    const at = Math.sqrt(from * top / band);
    names.append(draw("text", { class: "line-name", "text-anchor": "middle",
      transform: `translate(${X(at) - 6} ${Y(at * band) - 6}) rotate(${slope})` },
      `${level.toUpperCase()}, ${si(band, "B/s")}`));
    for (const [precision, ratio, macs] of ceilings) {
      svg.append(draw("line", { class: "roof", x1: X(macs / band), y1: Y(macs), x2: X(x1), y2: Y(macs),
        "stroke-dasharray": precision === "int8" ? "none" : "6 4" }));
      const name = `SPU, ${precision === "int8" ? "INT8" : "BF16"} ${ratio > 1 ? `at ${ratio}×` : "dense"}`;
      names.append(draw("text", { class: "line-name", x: X(x1) - 4, y: Y(macs) + 16, "text-anchor": "end" },
        width < 600 ? name : `${name}, ${si(macs, "MAC/s")}`));
    }
  }

  function dots(svg, shown, column, X, Y) {
    // Steps that are alike are one dot, of the time of all of them.
    const groups = new Map();
    for (const point of shown) {
      const row = rows.get(point[0]);
      if (!row) continue;
      const key = [point[1], point[column], row[OP], row[LIMIT]].join();
      const group = groups.get(key) ?? { point, row, count: 0, time: 0 };
      groups.set(key, group);
      group.count += 1;
      group.time += row[TIME];
    }
    // The largest first, so that small ones stay in sight.
    for (const { point, row, count, time } of [...groups.values()].sort((a, b) => b.time - a.time)) {
      const share = data.total ? time / data.total : 0;
      const lines = [...layerLines(row),
        `${si(point[1], "MAC/s")}, ${percent(point[1] / point[4])} of the SPUs at its sparsity`,
        ...(count > 1 ? [`and ${count - 1} more like it: ${percent(share)} of all`] : [])];
      const dot = draw("circle", { class: `point mark ${limitClass(row[LIMIT])}`, tabindex: 0,
        cx: X(point[column]), cy: Y(point[1]), r: 4 + 22 * Math.sqrt(share),
        "data-steps": count, "aria-label": lines.join("; ") });
      dot.addEventListener("pointermove", (event) => showTip(lines, event.clientX, event.clientY));
      dot.addEventListener("pointerleave", hideTip);
      dot.addEventListener("focus", () => {
        const box = dot.getBoundingClientRect();
        showTip(lines, box.right, box.bottom);
      });
      dot.addEventListener("blur", hideTip);
      svg.append(dot);
    }
  }

  for (const name of ["l2", "ddr"]) {
    $(`roof-${name}`).addEventListener("click", () => {
      level = name;
      for (const other of ["l2", "ddr"]) $(`roof-${other}`).setAttribute("aria-pressed", other === name);
      build();
    });
  }
  saveButton("save-roofline", chart, "roofline");
  build();
  new ResizeObserver(() => {
    if (Math.max(300, chart.clientWidth) !== width) build();
  }).observe(chart);
})();
