"""The page of an estimate: its data, its size, and what it does in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.work_tables import Program, network

from spu_ir import Target
from spu_ir.schedule.estimate import Estimate, estimate
from spu_ir.schedule.options import Options
from spu_ir.schedule.page import EVENTS, page_of
from spu_ir.schedule.roofline import roofline
from spu_ir.schedule.work import WorkTable
from spu_ir.tools.spu_perf import main
from spu_ir.zoo.linear_model import linear

EVIL = (
    "</script><script>document.title='owned'</script>"
    "<img src=x onerror=owned()> --><!-- &amp; \x1b[31m"
)
"""A layer of an untrusted model."""


def of(batch: int = 12, table: WorkTable | None = None, **options: Any) -> Estimate:
    return estimate(table or network(), Target.load("s4"), batch, {}, Options(**options))


def evil() -> WorkTable:
    """The network of hand-made steps, all of them called by a name that tries to be a script."""
    table = network()
    return replace(table, program=tuple(replace(step, layer=EVIL) for step in table.program))


class _Page(HTMLParser):
    """What a page holds: its tags, and the text of its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def data_of(page: str) -> dict[str, Any]:
    return json.loads(_Page(page).scripts[0])


def test_the_page_holds_the_estimate() -> None:
    e = of(12, host=True)
    found = data_of(page_of(e, "net"))
    assert (found["title"], found["target"], found["batch"]) == ("net", "s4", 12)
    assert found["throughput"] == e.throughput
    assert found["power"] == e.power_w
    names = [found["names"][row[0]] for row in found["layers"]]
    assert names == [layer.layer for layer in e.layers]
    assert [row[4] for row in found["layers"]] == [layer.bottleneck for layer in e.layers]
    first = [event for event in e.timeline if event.core == 0]
    assert found["timeline"]["of"] == len(found["timeline"]["events"]) == len(first)
    assert len(found["roofline"]["points"]) == 5


def test_the_page_is_one_file_and_always_the_same() -> None:
    page = page_of(of(), "net")
    assert page == page_of(of(), "net")
    for tag, attributes in _Page(page).tags:
        assert not attributes.keys() & {"src", "href", "onload", "onclick"}
        assert tag not in ("link", "iframe", "img", "object", "base")
    assert re.findall(r"https?://[^\"'\s]*", page) == ["http://www.w3.org/2000/svg"] * 2
    assert "default-src 'none'" in page


def test_names_of_a_model_stay_names() -> None:
    page = page_of(of(table=evil()), EVIL)
    parsed = _Page(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in parsed.tags]
    assert (
        page.count("owned()") == page.count("onerror=owned()\\u003e") + 2
    )  # And two of the title.
    assert data_of(page)["names"][0] == EVIL
    marks = page_of(of(table=replace_names(network(), "{{script}} {{data}}")), "{{style}}")
    assert data_of(marks)["names"][0] == "{{script}} {{data}}"
    assert data_of(marks)["title"] == "{{style}}"


def replace_names(table: WorkTable, name: str) -> WorkTable:
    return replace(table, program=tuple(replace(step, layer=name) for step in table.program))


def test_a_lone_surrogate_and_a_long_name() -> None:
    page = page_of(of(table=replace_names(network(), "\ud800" + "x" * 10_000 + "y")), "net")
    page.encode("utf-8")
    name = data_of(page)["names"][0]
    assert (len(name), name[0], name.count("…"), name[-1]) == (160, "\ud800", 1, "y")


def test_a_page_of_very_much_is_below_two_megabytes() -> None:
    program = Program().input(100)
    for number in range(6000):
        program.step("spu.matmul", macs=1000 + number, weights=100, out=64)
    table = program.table()
    # "<" takes the most bytes, as it is escaped.
    steps = (replace(s, layer=f"{n}/{'<' * 200}") for n, s in enumerate(table.program))
    e = of(64, replace(table, program=tuple(steps)), core_batch=8)
    page = page_of(e, "many")
    assert len(page.encode("utf-8")) < 2_000_000
    found = data_of(page)
    assert (len(found["layers"]), found["steps"]) == (4000, 6000)
    assert len(found["timeline"]["events"]) == EVENTS < found["timeline"]["of"]
    starts = [row[3] for row in found["timeline"]["events"]]
    assert starts == sorted(starts)


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    onnx.save(linear(64, 32), tmp_path / "small.onnx")
    arguments = [str(tmp_path / "small.onnx"), "--shapes", "batch=1:4", "--html"]
    assert main(["estimate", *arguments, str(tmp_path / "page.html")]) == 0
    assert f"page: {tmp_path / 'page.html'}" in capsys.readouterr().out
    assert data_of((tmp_path / "page.html").read_text("utf-8"))["title"] == "small"


class _Dumped(HTMLParser):
    """What the browser's document holds: tags with a class, and text by the id it is under."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text.append(data)

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [found for _, found in self.tags if name in (found.get("class") or "").split()]


def browser() -> str:
    """A Chromium to look at pages with: `CHROMIUM`, which must then be there, or any."""
    if given := os.environ.get("CHROMIUM"):
        return given
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no Chromium: apt-get install chromium")


def opened(page: str, folder: Path, *options: str) -> tuple[_Dumped, str]:
    """The document after its script ran, and what the browser's console says."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    arguments = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [
            *(browser(), *arguments, profile, "--enable-logging=stderr", "--window-size=1280,900"),
            *(*options, "--virtual-time-budget=3000", "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return _Dumped(done.stdout), "\n".join(console)


@pytest.mark.slow
def test_the_page_draws_everything_in_a_browser(tmp_path: Path) -> None:
    e = of(16)
    page = page_of(e, "net")
    found, console = opened(page, tmp_path)
    assert console == ""
    assert "data-failed" not in found.tags[0][1]
    assert len(found.of_class("bar")) == len([event for event in e.timeline if event.core == 0])
    steps = [int(each["data-steps"] or 0) for each in found.of_class("point")]
    assert sum(steps) == len(data_of(page)["roofline"]["points"]) == 5
    assert len([tag for tag, _ in found.tags if tag == "li"]) == len(e.layers)
    text = "\n".join(found.text)
    assert f"{round(e.throughput):,} /s" in text
    assert "layer0" in text


@pytest.mark.slow
def test_a_name_that_is_a_script_stays_text_in_a_browser(tmp_path: Path) -> None:
    found, console = opened(page_of(of(table=evil()), EVIL), tmp_path)
    assert console == ""
    titles = [text for text in found.text if text.startswith("</script>")]
    assert len(titles) >= 2  # The title and the head of the page, and the layers.
    assert all("document.title='owned'" in text for text in titles)
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert [tag for tag, _ in found.tags].count("img") == 0
    assert "owned" not in found.text


@pytest.mark.slow
def test_an_error_of_the_page_would_be_seen(tmp_path: Path) -> None:
    """The checks above can fail: broken data, and a script that the policy forbids."""
    page = page_of(of(), "net")
    broken = re.sub(r'"kinds":\{[^}]*\}', '"kinds":null', page)
    assert broken != page
    found, console = opened(broken, tmp_path)
    assert "TypeError" in console
    assert found.tags[0][1]["data-failed"] == "yes"
    planted = page.replace("</body>", "<script>document.title = 'owned'</script></body>")
    found, console = opened(planted, tmp_path)
    assert "Content Security Policy" in console
    assert "owned" not in [text.strip() for text in found.text]


USE = """
const seen = {};
const press = (key) => $("timeline").dispatchEvent(new KeyboardEvent("keydown", { key }));
const svg = () => document.querySelector("#timeline svg");
const moved = () => svg().querySelector("g[transform]").getAttribute("transform");
seen.whole = moved();
press("+");
seen.zoomed = moved();
press("ArrowRight");
seen.right = moved();
press("0");
seen.back = moved();
press("n");
press("n");
seen.event = $("timeline-event").textContent;
const over = (element) => element.dispatchEvent(
  new PointerEvent("pointermove", { bubbles: true, clientX: 300, clientY: 300 }));
over(document.querySelectorAll(".bar")[1]);
seen.hover = $("tip").textContent;
seen.shown = !$("tip").hidden;
svg().dispatchEvent(new PointerEvent("pointerleave"));
seen.hidden = $("tip").hidden;
$("roof-ddr").click();
seen.ddr = [...document.querySelectorAll(".point")].map((dot) => Number(dot.dataset.steps));
$("filter").value = "attention";
$("filter").dispatchEvent(new Event("input"));
seen.filtered = document.querySelectorAll("#layers li").length;
seen.wide = document.documentElement.scrollWidth > innerWidth;
seen.picture = pictureOf(svg());
document.body.append(make("pre", { id: "seen" }, JSON.stringify(seen)));
"""
"""A user of the page, who needs it without its policy: it runs no script but its own."""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_used_in_a_browser(tmp_path: Path, width: int) -> None:
    scarce = Target.load("s4").replace({"l2.size": 40e3})
    e = estimate(network(), scarce, 12, {}, Options())
    page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page_of(e, "net"))
    # A window cannot be as narrow as a phone; a frame can.
    used = page.replace("</body>", f"<script>{USE}</script></body>")
    (tmp_path / "used.html").write_text(used, encoding="utf-8")
    reading = "document.body.append(this.contentDocument.getElementById('seen'))"
    style = f"width:{width}px; height:900px; border:0"
    frame = f'<iframe src="used.html" style="{style}" onload="{reading}"></iframe>'
    found, console = opened(frame, tmp_path, "--allow-file-access-from-files")
    assert console == ""
    (text,) = [text for text in found.text if text.startswith('{"whole"')]
    seen = json.loads(text)
    assert len({seen["whole"], seen["zoomed"], seen["right"]}) == 3
    assert seen["back"] == seen["whole"]
    second = sorted((x for x in e.timeline if x.core == 0), key=lambda x: x.start_s)[1]
    layer, what = map(re.escape, (second.layer, f"{second.unit}: {second.label}"))
    assert re.fullmatch(rf"{layer}; {what}; .*s, from .*s; [0-9.]+ .+", seen["event"])
    assert re.fullmatch(rf"{layer}{what}.*s, from .*s[0-9.]+ .+", seen["hover"])
    assert (seen["shown"], seen["hidden"], seen["wide"]) == (True, True, False)
    assert seen["filtered"] == 1
    assert sum(seen["ddr"]) == len([p for p in roofline(e).points if "ddr" in p.per_byte]) > 0
    picture = ElementTree.fromstring(seen["picture"])
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(picture.findall(".//*[@class]")) > 10
