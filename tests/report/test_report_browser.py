"""The page in a real browser, where one is installed: it draws, sorts, fits, and loads nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from randprune.bench.keys import Row
from randprune.report import RunRecord, report_of
from randprune.report.html import render
from randprune.testing import write_bench_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",  # as on a phone, where they take no room
    "--virtual-time-budget=5000",
)
WATCH = """<script>
window.problems = [];
addEventListener("error", (e) => problems.push("error: " + e.message));
addEventListener("unhandledrejection", (e) => problems.push("rejection: " + e.reason));
addEventListener("securitypolicyviolation", (e) => problems.push("loads: " + e.blockedURI));
</script>"""
LOOK = """<script>
addEventListener("load", () => document.querySelector('td a[href^="#"]')?.click());
addEventListener("load", () => setTimeout(() => {
  const table = document.querySelector('table[data-name="results"]');
  const names = () => [...table.tBodies[0].rows].map((r) => r.cells[0].innerText.split("\\n")[0]);
  const sort = (i) => { table.tHead.rows[0].cells[i].querySelector("button").click();
    return [names(), table.tHead.rows[0].cells[i].getAttribute("aria-sort")]; };
  const root = document.documentElement;
  document.title = JSON.stringify({
    problems: window.problems,
    drawn: [...document.querySelectorAll("[data-chart]")].map((place) =>
      [place.dataset.chart, place.querySelectorAll(".main-svg .trace, .main-svg .bars").length]),
    order: [sort(1), sort(1), sort(0), sort(8)],
    overflow: root.scrollWidth - root.clientWidth,
    width: root.clientWidth,
    background: getComputedStyle(document.body).backgroundColor,
    axis: getComputedStyle(document.querySelector(".xtitle")).fill,
    buttons: [...document.querySelectorAll(".save")].map((b) => b.textContent),
    followed: document.querySelectorAll("tr.target").length,
    unfolded: [...document.querySelectorAll("tr.target")].every((r) => r.closest("details").open),
    modebars: document.querySelectorAll(".modebar-btn").length,
    tables: Object.fromEntries([...document.querySelectorAll(".card > .scroll")].map((place) => [
      place.querySelector("table").dataset.name,
      { beyond: place.scrollWidth - place.clientWidth,
        shown: [...place.querySelectorAll("thead th")].filter((th) => th.offsetWidth)
          .map((th) => th.querySelector("button").innerText.trim()),
        high: Math.max(...[...place.querySelectorAll("tbody tr")].map((r) => r.offsetHeight)) },
    ])),
    wide: [...document.querySelectorAll(".plot .main-svg")]
      .filter((svg) => svg.getBoundingClientRect().right > root.clientWidth).length,
    top: document.querySelector("figure, table").getBoundingClientRect().top + scrollY,
  });
  if (parent !== window) parent.postMessage(document.title, "*");
}, 500));
</script>"""

# A window of the browser is never narrower than 500 pixels, a frame is.
FRAME = """<!doctype html><title>{}</title><body style="margin:0">
<script>addEventListener("message", (event) => { document.title = event.data; });</script>
<iframe src="page.html" style="border:0;width:WIDTHpx;height:844px"></iframe></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def look(page: str, folder: Path, width: int, *flags: str) -> dict[str, Any]:
    """What a reader's browser makes of the page."""
    path = folder / "page.html"
    path.write_text(
        page.replace("<title>", WATCH + "<title>", 1).replace("</body>", LOOK + "</body>"),
        encoding="utf-8",
    )
    if width < 500:
        frame = folder / "frame.html"
        frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
        path = frame
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            *flags,
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},2000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    return found


def test_page_draws_sorts_and_fits_on_a_desktop(finished: RunRecord, tmp_path: Path) -> None:
    found = look(render(report_of(finished).page), tmp_path, 1280)
    assert found["problems"] == []
    assert len(found["drawn"]) == 11
    assert [name for name, traces in found["drawn"] if traces == 0] == []
    assert found["overflow"] == 0
    assert found["buttons"].count("Save as PNG") == 11
    assert found["modebars"] == 0

    best_first = ["dense", "best random", "uniform width", "random channels"]
    by_accuracy, backwards, by_name, by_speed = found["order"]
    assert by_accuracy == [best_first, "descending"]
    assert backwards == [best_first[::-1], "ascending"]
    assert by_name == [sorted(best_first), "ascending"]
    # The dense network has no speed-up: what is missing stays at the end.
    assert by_speed == [[*best_first[1:], "dense"], "descending"]


def test_page_fits_on_a_phone_and_follows_the_dark_scheme(
    finished: RunRecord, tmp_path: Path
) -> None:
    dark = "--blink-settings=preferredColorScheme=0"
    found = look(render(report_of(finished).page), tmp_path, 390, dark)
    assert found["problems"] == []
    assert found["width"] == 390
    assert found["wide"] == 0
    # The first figure begins on the first screen.
    assert found["top"] < 844
    networks = found["tables"]["results"]
    assert networks["beyond"] <= 0
    assert networks["shown"] == ["Network", "Test accuracy", "MACs", "Speed-up"]
    assert found["overflow"] == 0
    assert found["background"] == "rgb(15, 19, 24)"
    assert found["axis"] == "rgb(231, 235, 240)"


def test_page_of_a_benchmark_fits_on_a_phone_and_leads_to_its_records(tmp_path: Path) -> None:
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("random_search", "l2"): 0.0,
        Row("uniform", "l1"): -0.02,
    }
    run = write_bench_run(tmp_path / "run", effects, epochs=(1, 2), draws=4)
    found = look(render(report_of(run).page), tmp_path, 390)
    assert found["problems"] == []
    assert (found["overflow"], found["wide"]) == (0, 0)
    assert found["top"] < 844
    board = found["tables"]["leaderboard"]
    assert board["beyond"] <= 0
    assert board["shown"] == ["Method", "Test accuracy", "Points to the reference", "Verdict"]
    assert board["high"] < 100  # pixels: no name is broken into a column of letters
    assert len(found["drawn"]) == 8
    assert [name for name, traces in found["drawn"] if traces == 0] == []
    assert found["followed"] == 4  # one result a draw
    assert found["unfolded"]
