"""Reports in headless Chromium: they load without a complaint or a request, and answer to pointer, theme and width.

Where there is no Chromium the tests are skipped, unless CHIPMESH_REQUIRE_BROWSER is set, as it is in CI.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

from cluster.cli import main
from tests.cluster.stored import MATHS, SCRIPT, store_run, store_sweep

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not os.environ.get("CHIPMESH_REQUIRE_BROWSER"),
    reason="there is no chromium with chromedriver (Debian: apt-get install chromium chromium-driver)",
)
WORDS = """
const inside = (node) => [...node.childNodes].map((child) => child.nodeType === 3 ? child.data :
  /^(STYLE|SCRIPT)$/.test(child.tagName) ? "" : words(child)).join(" ");
const words = (node) => inside(node) + (node.shadowRoot ? inside(node.shadowRoot) : "");
return words(document.body);
"""
WHERE = """
const [figure, source, x, y, place] = arguments, model = findModel(figure, figure);
const data = findModel(figure, source).data, view = Bokeh.index.find_one(model);
document.getElementById(`figure-${figure}`).scrollIntoView({ block: "center" });
const box = view.canvas_view.el.getBoundingClientRect();
return [box.left + view.frame.x_scale.compute(data[x][place]), box.top + view.frame.y_scale.compute(data[y][place])];
"""


FIND = """
const [figure, source, wanted] = arguments, data = findModel(figure, source).data;
return data.row.findIndex((_, i) => Object.entries(wanted).every(([key, value]) => data[key][i] === value));
"""
MIDDLES = """
const data = findModel('timeline', 'timeline-source').data;
data.x = data.left.map((left, i) => (left + data.right[i]) / 2);
data.y = data.top.map((top) => top + 0.42);
"""
NEAR = """
const [one, other] = arguments, data = findModel('pareto', 'pareto-dots').data;
const i = data.row.indexOf(one), j = data.row.indexOf(other);
return Math.abs(Math.log(data.x[i] / data.x[j])) + Math.abs(Math.log(data.y[i] / data.y[j])) < 0.05;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, for all tests: it takes a second to start."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The reports of a run and of a sweep with hostile names."""
    folder = tmp_path_factory.mktemp("stored")
    run, sweep = store_run(folder, "--set", "micro_batches=2"), store_sweep(folder)
    for kept in (run, sweep):
        assert main(["report", str(kept)]) == 0
    return {"run": run / "report.html", "sweep": sweep / "report.html"}


@pytest.fixture
def shown(browser, pages):
    """Return a function that opens a page and waits for all its figures; at the end, no complaint may be in the log."""

    def open_page(kind, width=1280, theme="light"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 6000, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        browser.get("about:blank")
        browser.get_log("performance")  # the browser's own start page
        browser.get(pages[kind].as_uri())
        wait(browser, "return document.querySelectorAll('[data-figure]:not([data-shown])').length === 0")
        return browser

    yield open_page
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]
    assert not complaints


def wait(browser, script, *arguments):
    return WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda b: b.execute_script(script, *arguments))


def point_at(browser, place, *, click=False):
    """Move the pointer to a place, and press there."""
    chain = ActionChains(browser, duration=20)
    chain.w3c_actions.pointer_action.move_to_location(*map(round, place))
    if click:
        chain.w3c_actions.pointer_action.click()
    chain.perform()


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_loads_without_requests(shown, kind):
    """The file itself is all that is asked for, and names are shown as words."""
    browser = shown(kind)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in asked)
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
    assert "taken" not in browser.title.split()
    assert SCRIPT in browser.execute_script(WORDS)


def test_hover_says_what_an_operation_is(shown):
    """A mark of the timeline names its operation, chip, layer and times."""
    browser = shown("run")
    place = browser.execute_script(FIND, "timeline", "timeline-source", {"operation": "all_reduce", "row": "chip 2"})
    assert place >= 0
    browser.execute_script(MIDDLES)
    point_at(browser, browser.execute_script(WHERE, "timeline", "timeline-source", "x", "y", place))
    wait(browser, f"return (() => {{ {WORDS} }})().includes('all_reduce')")
    words = browser.execute_script(WORDS)
    assert "where: chip 2" in " ".join(words.split())
    assert " us" in words


IN_SIGHT = """
const { x_range: { start, end } } = findModel("timeline", "timeline");
const { left, right, operation } = findModel("timeline", "timeline-source").data;
const blocks = operation.filter((words) => / operations,/.test(words));
return left.every((from, i) => right[i] > start && from < end) && blocks.length <= arguments[0];
"""


def test_zoom_draws_what_is_in_sight(shown):
    """Closer in, only what is in sight is drawn, and blocks of many operations have come apart into operations."""
    browser = shown("run")
    range_of = "const r = findModel('timeline', 'timeline').x_range; return [r.start, r.end]"
    whole = browser.execute_script(range_of)
    assert browser.execute_script(IN_SIGHT, 1000)
    assert not browser.execute_script(IN_SIGHT, 20)
    browser.execute_script("document.querySelector('[data-show=step]').click()")
    start, end = browser.execute_script(range_of)
    assert whole[0] < start < end < whole[1]
    for _ in range(5):
        browser.execute_script("document.querySelector('[data-show=in]').click()")
    wait(browser, IN_SIGHT, 20)
    browser.execute_script("document.querySelector('[data-show=whole]').click()")
    assert browser.execute_script(range_of) == whole


def test_links_over_time(shown):
    """The slider colours the links of a window; a click on the busiest links does too."""
    browser = shown("run")
    colors = "return findModel('topology', 'topology-source').data.color.join()"
    whole = browser.execute_script(colors)
    slide = "const s = document.getElementById('window'); s.value = arguments[0]; s.dispatchEvent(new Event('input'));"
    seen = set()
    for window in (1, 40, 120):
        browser.execute_script(slide, window)
        seen.add(browser.execute_script(colors))
    assert len(seen | {whole}) > 2
    assert browser.execute_script("return document.getElementById('window-says').textContent").endswith(" us")
    browser.execute_script("findModel('busiest', 'busiest-source').selected.indices = [0]")
    window = browser.execute_script("return findModel('busiest', 'busiest-source').data.window[0]")
    assert browser.execute_script("return Number(document.getElementById('window').value)") == window + 1


def test_a_click_on_a_point_shows_its_spec(shown):
    """Hover shows the values of a point; a click opens it, marks it in the table and is kept in the address."""
    browser = shown("sweep")
    point = browser.execute_script("return findModel('pareto', 'pareto-dots').data.row[0]")
    place = browser.execute_script(WHERE, "pareto", "pareto-dots", "x", "y", 0)
    point_at(browser, place)
    wait(browser, f"return (() => {{ {WORDS} }})().includes('tokens_per_s_per_user')")
    point_at(browser, place, click=True)
    wait(browser, "return !document.getElementById('chosen').hidden")
    wait(browser, "return document.querySelector('#chosen .tree')")
    chosen = browser.execute_script("return document.getElementById('chosen').innerText")
    assert chosen.startswith("×")
    title = browser.execute_script("return document.getElementById('chosen-title').textContent")
    number = int(title.removeprefix("point "))
    assert browser.execute_script(NEAR, point, number)  # marks may lie on each other
    assert MATHS in chosen  # the chip's name, in the spec
    assert "memory" in chosen
    assert browser.execute_script("return location.hash") == f"#point-{number}"
    row = browser.execute_script("return document.querySelector('#table tr.chosen').innerText")
    assert row.split()[0] == str(number)


def test_the_table_sorts_and_finds(shown):
    """A heading sorts, the box finds, a number is a link to its point."""
    browser = shown("sweep")
    column = "return [...document.querySelectorAll('#table tbody tr')].map((r) => r.cells[0].textContent)"
    headings = browser.execute_script("return [...document.querySelectorAll('#table th')].map((h) => h.textContent)")
    browser.execute_script(f"document.querySelectorAll('#table th button')[{headings.index('tokens/s')}].click()")
    up = browser.execute_script(column)
    browser.execute_script(f"document.querySelectorAll('#table th button')[{headings.index('tokens/s')}].click()")
    assert browser.execute_script(column)[0] != up[0]
    find = "const f = document.getElementById('find'); f.value = arguments[0]; f.dispatchEvent(new Event('input'));"
    browser.execute_script(find, "failed")
    failed = browser.execute_script(column)
    assert 0 < len(failed) < len(up)
    browser.execute_script("document.querySelector('#table a').click()")
    wait(browser, "return !document.getElementById('chosen').hidden")
    assert "accepted" in browser.execute_script("return document.querySelector('#chosen .alert').textContent")


def test_the_table_shows_what_there_is(shown):
    """Columns without a value are left out; whole numbers are whole, others have four digits, large ones no more."""
    browser = shown("sweep")
    browser.find_element("id", "all-columns").click()
    headings, full, rounded = browser.execute_script(
        """
        const { columns } = Page.data.points;
        const full = Object.keys(columns).filter((name) => columns[name].some((value) => value !== null));
        const values = { batch: 131072, tokens_per_s: 1234.5678, tpot_s: 0.00123456 };
        return [[...document.querySelectorAll("#table th")].map((th) => th.textContent), full.map(withoutUnit),
                Object.entries(values).map(([name, value]) => shownNumber(name, value))];
        """
    )
    assert headings == full
    assert "cost_usd_per_million_tokens" not in headings
    assert rounded == ["131,072", "1,235", "1.235 ms"]


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_readable_in_both_themes(shown, kind, theme):
    """Texts of page and figures stand out from the background, in the theme that the reader has."""
    browser = shown(kind, theme=theme)
    colors = browser.execute_script(
        """
        const axes = [];
        for (const doc of Page.documents.values()) for (const model of doc._all_models.values()) {
          if (/Axis$/.test(model.type) && model.visible) axes.push(model.major_label_text_color);
        }
        const style = getComputedStyle(document.body);
        return { back: style.backgroundColor, ink: style.color, soft: css("--soft"), axes };
        """
    )
    assert contrast(colors["back"], colors["ink"]) > 7
    assert colors["axes"]
    assert all(contrast(colors["back"], color) > 4.5 for color in {colors["soft"], *colors["axes"]})
    assert (luminance(colors["back"]) < 0.2) == (theme == "dark")


def luminance(color):
    """Return the relative luminance of `#rrggbb` or `rgb(r, g, b)` (WCAG 2.2)."""
    if color.startswith("#"):
        parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    else:
        parts = [int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in parts)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_fits_a_phone(shown, kind):
    """At 390 pixels nothing makes the page scroll sideways, and figures are as wide as the page."""
    browser = shown(kind, width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    widths = browser.execute_script(
        "return [...document.querySelectorAll('[data-figure]')].map((f) => f.getBoundingClientRect().right)"
    )
    assert widths
    assert all(right <= 390 for right in widths)


def test_shares_are_not_cut_on_a_phone(shown):
    """The share beside the longest bar ends within its figure."""
    browser = shown("run", width=390)
    room, width = browser.execute_script(
        """
        const models = [...Page.documents.get("operations")._all_models.values()];
        const figure = models.find((model) => model.inner_width > 0);
        const source = figure.renderers[0].data_source.data, { start, end } = figure.x_range;
        const last = source.time.length - 1, pen = document.createElement("canvas").getContext("2d");
        pen.font = "11px " + getComputedStyle(document.body).fontFamily;
        const right = (source.time[last] - start) / (end - start) * figure.inner_width;
        return [figure.inner_width - right, 6 + pen.measureText(source.share[last]).width];
        """
    )
    assert room >= width > 6
