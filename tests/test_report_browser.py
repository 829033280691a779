"""report.html in a real browser: it fits a phone, says nothing on the console, and asks no server for anything."""

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from audit.report import render_html
from audit.results import Results, load
from tests import report_examples as examples
from tests.advice_examples import advised, spiteful, vast

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--enable-logging=stderr",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

# Measures the report in a frame of a phone's width; the script is the test's, the report has none.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const frame = document.createElement("iframe");
frame.width = {width}; frame.height = 800;
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll("main *")].filter((e) =>
    e.getBoundingClientRect().right > {width} + 1 && !e.closest(".scroll, pre, details:not([open])"));
  const found = {{
    inner: frame.contentWindow.innerWidth, scroll: root.scrollWidth, height: root.scrollHeight,
    narrow: [...page.querySelectorAll("main th, main td")].filter((e) =>
      e.textContent.trim().length > 3 && e.clientWidth && e.clientWidth < 40).slice(0, 5).map((e) => e.textContent),
    wide: wide.slice(0, 5).map((e) => e.tagName + "." + e.className), title: page.title,
    scripts: page.scripts.length, images: page.images.length,
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  }};
  document.body.textContent = "RESULT" + JSON.stringify(found) + "END";
}};
frame.srcdoc = {page};
document.body.append(frame);
</script>"""


def browse(tmp_path: Path, page: str, *flags: str) -> tuple[str, str]:
    """The document after loading, and what chromium logged."""
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    assert CHROMIUM
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def measure(tmp_path: Path, page: str, width: int, *flags: str) -> dict[str, Any]:
    literal = json.dumps(page).replace("<", "\\u003c")
    dom, _ = browse(tmp_path, MEASURE.format(width=width, page=literal), *flags)
    found = re.search(r"RESULT(.*)END", dom, re.DOTALL)
    assert found, dom[-2000:]
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


def rendered(results: Results) -> str:
    return render_html(results, rendered=examples.RENDERED)


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("make", [examples.no_go, examples.hostile, advised, vast, spiteful])
def test_no_sideways_scrolling(tmp_path: Path, make: Callable[[], Results], width: int) -> None:
    found = measure(tmp_path, rendered(make()), width)
    assert found["inner"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["narrow"] == []


@pytest.mark.parametrize("fleet", ["uniform", "mixed", "partial", "mellanox"])
def test_no_sideways_scrolling_of_the_sample_fleets(tmp_path: Path, fleet: str) -> None:
    results = load(Path(__file__).parent.parent / "sample_data" / fleet / "results.json")
    found = measure(tmp_path, rendered(results), 360)
    assert found["scroll"] <= 360
    assert found["wide"] == []


def test_nothing_on_the_console(tmp_path: Path) -> None:
    for make in (examples.no_go, examples.hostile, advised, spiteful):
        dom, log = browse(tmp_path, rendered(make()))
        assert "CONSOLE" not in log
        assert dom.count("<h2>") >= 10
        assert "<script" not in dom


def test_the_console_would_have_told(tmp_path: Path) -> None:
    """The control for the test above: a violated policy does show."""
    _, log = browse(tmp_path, rendered(examples.go()).replace("<main>", '<main><p style="color:red">x</p>'))
    assert "CONSOLE" in log


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server's address and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}", asked
    web.shutdown()
    web.server_close()


def test_nothing_is_fetched(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    lure = f'"><img src={url}/img><script src={url}/js></script><link rel=stylesheet href={url}/css>'
    results = examples.go()
    results["guests"][0]["name"] = lure
    results["verdict"]["blocking"] = [lure, f"</style><style>@import '{url}/import';", f"url({url}/url)"]
    results["run"]["id"] = lure
    page = rendered(results)
    browse(tmp_path, page)
    assert asked == []
    found = measure(tmp_path, page, 800)
    assert (found["scripts"], found["images"]) == (0, 0)
    # The control: were the text not escaped, the policy would still refuse; without both, the server hears of it.
    open_page = page.replace("<main>", f"<main><img src={url}/img>")
    browse(tmp_path, open_page)
    assert asked == []
    browse(tmp_path, re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", open_page))
    assert "/img" in asked


def test_dark_where_dark_is_wanted(tmp_path: Path) -> None:
    light = measure(tmp_path, rendered(examples.go()), 800)
    dark = measure(tmp_path, rendered(examples.go()), 800, "--blink-settings=preferredColorScheme=0")
    assert light["background"] == "rgb(255, 255, 255)"
    assert dark["background"] == "rgb(22, 26, 32)"
