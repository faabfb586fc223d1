// Every step as a bar, coloured by what limits it.
(function layers() {
  const FIRST = 40;
  const list = $("layers");
  let all = false, ordered = false;

  const limits = new Map();
  for (const row of data.layers) limits.set(row[LIMIT], (limits.get(row[LIMIT]) ?? 0) + row[TIME]);
  for (const [limit, time] of [...limits].sort((a, b) => b[1] - a[1])) {
    $("limits").append(make("span", {}, make("span", { class: `swatch ${limitClass(limit)}` }),
      `${limit || "nothing"} ${percent(data.total ? time / data.total : 0)}`));
  }

  function build() {
    const wanted = $("filter").value.toLowerCase();
    const found = data.layers.filter((row) =>
      [NAME, OP, LIMIT, KIND].some((column) => row[column].toLowerCase().includes(wanted)));
    if (!ordered) found.sort((a, b) => b[TIME] - a[TIME]);
    const shown = all ? found : found.slice(0, FIRST);
    const most = Math.max(...data.layers.map((row) => row[TIME]), 1e-30);
    list.replaceChildren(...shown.map((row) => {
      const fill = make("div", { class: `fill ${limitClass(row[LIMIT])}` });
      fill.style.width = `${100 * row[TIME] / most}%`;
      const label = make("span", { class: "label" }, row[NAME] || "(of no node)", " ",
        make("span", { class: "op" }, row[OP]));
      const item = make("li", { tabindex: 0 }, label, make("div", { class: "track" }, fill),
        make("span", { class: "figure" }, si(row[TIME], "s")),
        make("span", { class: "figure" }, percent(data.total ? row[TIME] / data.total : 0)));
      item.setAttribute("aria-label", layerLines(row).join("; "));
      item.addEventListener("pointermove", (event) => showTip(layerLines(row), event.clientX, event.clientY));
      item.addEventListener("pointerleave", hideTip);
      item.addEventListener("focus", () => {
        if (!item.matches(":focus-visible")) return;
        const box = item.getBoundingClientRect();
        showTip(layerLines(row), box.left + box.width / 3, box.bottom);
      });
      item.addEventListener("blur", hideTip);
      return item;
    }));
    const cut = data.steps > data.layers.length ? ` (the longest of ${data.steps})` : "";
    $("layers-note").textContent = `${found.length} of ${data.layers.length} steps${cut} of one pass of a core, `
      + "each as long as its busiest unit takes.";
    $("more").textContent = all ? "show fewer" : `show all ${found.length}`;
    $("more").hidden = found.length <= FIRST;
  }

  $("filter").addEventListener("input", build);
  $("more").addEventListener("click", () => { all = !all; build(); });
  for (const [id, value] of [["by-time", false], ["by-order", true]]) {
    $(id).addEventListener("click", () => {
      ordered = value;
      $("by-time").setAttribute("aria-pressed", !ordered);
      $("by-order").setAttribute("aria-pressed", ordered);
      build();
    });
  }
  build();
})();
