// One core's events: a lane a unit, zoomed by buttons, keys, pinches and Ctrl with the wheel.
(function timeline() {
  const { events, of, end } = data.timeline;
  const { names } = data;
  const chart = $("timeline");
  const LANE = 30, GAP = 6, TOP = 24, LABEL = 66;
  const used = data.units.filter((_, n) => events.some((e) => e[0] === n));
  const lanes = new Map(used.map((unit, place) => [data.units.indexOf(unit), place]));
  const height = TOP + used.length * (LANE + GAP) + 4;
  const AMOUNT = { spu: "MAC", vpu: "operations", sfu: "operations" };
  const span = end || 1;
  let width = 0, scale = 1, left = 0, chosen = -1; // `left` is the time at the left edge, in ns.
  let svg, bars, axis, labels, mark;

  const cut = of > events.length ? ` The first ${events.length.toLocaleString("en")} of ${of.toLocaleString("en")} events are drawn.` : "";
  $("timeline-note").textContent = "The first core, one batch on an idle card; all cores in use work alike. "
    + `A bar is from start to end, waits within it included. Drag to move, Ctrl and wheel or + and − to zoom.${cut}`;

  const laneTop = (unit) => TOP + lanes.get(unit) * (LANE + GAP);
  const inner = () => width - LABEL;

  function build() {
    width = Math.max(300, chart.clientWidth);
    svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    const clip = draw("clipPath", { id: "plot" });
    clip.append(draw("rect", { x: LABEL, y: 0, width: inner(), height }));
    svg.append(clip);
    axis = draw("g", { "clip-path": "url(#plot)" });
    for (const unit of used) {
      const y = laneTop(data.units.indexOf(unit));
      svg.append(draw("rect", { class: "lane", x: LABEL, y, width: inner(), height: LANE }));
      svg.append(draw("text", { x: LABEL - 8, y: y + LANE / 2 + 4, "text-anchor": "end" }, unit));
    }
    const plot = draw("g", { "clip-path": "url(#plot)" });
    bars = draw("g", {});
    const turns = data.units.map(() => 0); // Neighbours in a lane differ in shade.
    events.forEach(([unit, , , start, time], number) => {
      const bar = draw("rect", {
        class: `bar mark ${unitClass(data.units[unit])}${turns[unit]++ % 2 ? " odd" : ""}`,
        x: start, y: laneTop(unit), width: Math.max(time, span / 1e6), height: LANE,
      });
      bar.number = number;
      bars.append(bar);
    });
    labels = draw("g", {});
    mark = draw("rect", { class: "chosen", height: LANE, rx: 2, visibility: "hidden" });
    plot.append(bars, labels, mark);
    svg.append(axis, plot);
    chart.replaceChildren(svg);
    listen();
    update();
  }

  const perPixel = () => span / scale / inner();
  const toX = (time) => LABEL + (time - left) / perPixel();

  function update() {
    scale = Math.min(Math.max(scale, 1), 1e5);
    left = Math.min(Math.max(left, 0), span - span / scale);
    const k = 1 / perPixel();
    bars.setAttribute("transform", `translate(${LABEL - left * k} 0) scale(${k} 1)`);
    axis.replaceChildren();
    const step = nice((span / scale) / Math.max(3, inner() / 110));
    for (let t = Math.ceil(left / step) * step; t <= left + span / scale; t += step) {
      axis.append(draw("line", { class: "tick", x1: toX(t), x2: toX(t), y1: TOP - 6, y2: height - 4 }));
      if (toX(t) > width - 48) continue;
      axis.append(draw("text", { x: toX(t) + 3, y: 13 }, t ? si(t * 1e-9, "s") : "0"));
    }
    labels.replaceChildren();
    const minimum = 46 * perPixel();
    let room = 160;
    for (const [unit, layer, label, start, time] of events) {
      if (time < minimum || start + time < left || start > left + span / scale) continue;
      if (!room--) break;
      const from = Math.max(toX(start), LABEL), to = Math.min(toX(start + time), width);
      const letters = Math.floor((to - from - 8) / 6.4);
      if (letters < 4) continue;
      const name = names[layer] || names[label];
      const text = name.length > letters ? `…${name.slice(1 - letters)}` : name;
      labels.append(draw("text", { class: "on", x: from + 4, y: laneTop(unit) + LANE / 2 + 4 }, text));
    }
    if (chosen >= 0) {
      const [unit, , , start, time] = events[chosen];
      mark.setAttribute("x", toX(start));
      mark.setAttribute("y", laneTop(unit));
      mark.setAttribute("width", Math.max(2, time / perPixel()));
    }
    mark.setAttribute("visibility", chosen >= 0 ? "visible" : "hidden");
  }

  function nice(step) {
    const power = 10 ** Math.floor(Math.log10(step));
    return [1, 2, 5, 10].find((n) => n * power >= step) * power;
  }

  function zoom(factor, x = LABEL + inner() / 2) {
    const time = left + (x - LABEL) * perPixel();
    scale = Math.min(Math.max(scale * factor, 1), 1e5);
    left = time - (x - LABEL) * perPixel();
    update();
  }

  function lines(number) {
    const [unit, layer, label, start, time, amount] = events[number];
    const name = data.units[unit];
    return [
      names[layer] || "(of no node)", `${name}: ${names[label]}`,
      `${si(time * 1e-9, "s")}, from ${si(start * 1e-9, "s")}`,
      si(amount, AMOUNT[name] ?? "B"),
    ];
  }

  function choose(number) {
    if (!events.length) return;
    chosen = Math.min(Math.max(number, 0), events.length - 1);
    const [, , , start, time] = events[chosen];
    if (start < left || start + time > left + span / scale) left = start - span / scale / 3;
    update();
    $("timeline-event").textContent = lines(chosen).join("; ");
  }

  function listen() {
    const held = new Map(); // Pointers that are down, by number: where they are.
    const place = (event) => event.clientX - svg.getBoundingClientRect().left;
    svg.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, place(event));
      svg.setPointerCapture(event.pointerId);
      svg.classList.add("moving");
    });
    svg.addEventListener("pointermove", (event) => {
      const x = place(event);
      if (!held.size) {
        const number = event.target.number;
        if (number === undefined) hideTip();
        else showTip(lines(number), event.clientX, event.clientY);
        return;
      }
      if (!held.has(event.pointerId)) return;
      hideTip();
      const before = held.get(event.pointerId);
      const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      held.set(event.pointerId, x);
      if (other !== undefined && Math.abs(before - other) > 4) {
        zoom(Math.abs(x - other) / Math.abs(before - other), (x + other) / 2);
      } else if (other === undefined) {
        left -= (x - before) * perPixel();
        update();
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      svg.addEventListener(name, (event) => {
        held.delete(event.pointerId);
        svg.classList.toggle("moving", held.size > 0);
      });
    }
    svg.addEventListener("click", (event) => {
      // The pointer is captured, so the bar is looked up where it is.
      const number = document.elementFromPoint(event.clientX, event.clientY)?.number;
      if (number !== undefined) choose(number);
    });
    svg.addEventListener("pointerleave", hideTip);
    svg.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) zoom(Math.exp(-event.deltaY / 300), place(event));
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        left += event.deltaX * perPixel();
        update();
      } else return;
      event.preventDefault();
    }, { passive: false });
  }

  const KEYS = {
    "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(1 / 1.6),
    0: () => { scale = 1; update(); },
    ArrowLeft: () => { left -= span / scale / 8; update(); },
    ArrowRight: () => { left += span / scale / 8; update(); },
    Home: () => { left = 0; update(); },
    End: () => { left = span; update(); },
    n: () => choose(chosen + 1), p: () => choose(chosen - 1),
  };
  chart.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    KEYS[event.key]();
    event.preventDefault();
  });
  $("zoom-in").addEventListener("click", () => zoom(1.6));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  $("zoom-all").addEventListener("click", KEYS[0]);
  saveButton("save-timeline", chart, "timeline");
  build();
  new ResizeObserver(() => {
    if (Math.max(300, chart.clientWidth) !== width) build();
  }).observe(chart);
})();
