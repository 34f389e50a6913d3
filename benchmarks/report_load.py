"""How long reports take to load in headless Chromium, and how large they are: galaxy-smollm2 and a sweep.

python benchmarks/report_load.py [--pictures docs/reports]

Needs Debian's chromium and chromium-driver. Prints, as medians of 5, when the page is read and when its first figure is
drawn; `--pictures` takes the pictures of docs/reports.md.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver

from cluster import sweep
from cluster.experiment import run_experiment
from cluster.report import write_report
from cluster.run_store import save_run
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
SWEEP = {
    "base": {
        "system": "dgx-h100", "model": "llama-3.1-70b", "numerics": "shapes",
        "workload": {"kind": "decode", "prompt_tokens": 128, "new_tokens": 4},
    },
    "grid": {
        "system": ["dgx-h100", "mi300x-node", "wormhole-t3000", "tpu-v4-2x2x2"],
        "parallel.tp": [2, 4, 8], "parallel.pp": [1, 2], "workload.batch": {"log": [1, 64], "n": 7},
    },
    "where": ["tp * pp <= n_chips"],
}  # fmt: skip
TIMES = """
const entry = performance.getEntriesByType("navigation")[0];
return [entry.domInteractive / 1000, window.firstShown / 1000];
"""
SPEC_IN_SIGHT = "setTimeout(() => document.querySelector('#chosen h3').scrollIntoView({ block: 'center' }), 500)"
WATCH = """
new MutationObserver(() => {
  if (!window.firstShown && document.querySelector("[data-shown]")) window.firstShown = performance.now();
}).observe(document, { subtree: true, attributes: true, childList: true });
"""


def stored(folder: Path) -> dict[str, Path]:
    """Return the reports."""
    (folder / "galaxy-smollm2").mkdir()
    save_run(run_experiment(load_experiment("galaxy-smollm2", (), VOCABULARY)), folder / "galaxy-smollm2")
    sweep(SWEEP, out=folder / "layouts").table()
    return {name: write_report(folder / name).path for name in ("galaxy-smollm2", "layouts")}


def start(profile: Path) -> webdriver.Chrome:
    """Return a browser with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    return driver


def show(browser: webdriver.Chrome, page: Path, width: int = 1180, height: int = 900, theme: str = "light") -> None:
    """Open a page and wait for the figures that are in sight."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get("about:blank")
    browser.get(page.as_uri())
    while not browser.execute_script("return document.querySelector('[data-shown]') && window.firstShown"):
        time.sleep(0.05)


def picture(browser: webdriver.Chrome, path: Path, *, section: str = "", script: str = "", height: int = 0) -> None:
    """Keep what is in sight, from a section on, as WebP."""
    if section:
        browser.execute_script(f"document.getElementById('{section}').scrollIntoView()")
    time.sleep(1)
    if script:
        browser.execute_script(script)
        time.sleep(1)
    image = Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    image.crop((0, 0, image.width, height or image.height)).save(path, quality=82, method=6)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def take_pictures(browser: webdriver.Chrome, reports: dict[str, Path], folder: Path) -> None:
    """Take the pictures of the documents."""
    folder.mkdir(exist_ok=True)
    run, points = reports["galaxy-smollm2"], reports["layouts"]
    show(browser, run, height=1010)
    picture(browser, folder / "run.webp")
    window = "const w = document.getElementById('window'); w.value = 2; w.dispatchEvent(new Event('input'));"
    show(browser, run, height=900, theme="dark")
    picture(browser, folder / "links.webp", section="links", script=window)
    show(browser, run, height=1080)
    picture(browser, folder / "times.webp", section="times")
    show(browser, points, height=900)
    choose = f"document.querySelectorAll('#table tr.front a')[2].click(); {SPEC_IN_SIGHT}"
    picture(browser, folder / "sweep.webp", section="pareto", script=choose)
    show(browser, run, width=390, height=844, theme="dark")
    picture(browser, folder / "phone.webp", section="timeline")


def main() -> None:
    """Measure, and take pictures where they are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = stored(Path(folder))
        browser = start(Path(folder) / "profile")
        try:
            for name, page in reports.items():
                times = []
                for _ in range(5):
                    show(browser, page)
                    times.append(browser.execute_script(TIMES))
                read_s, shown_s = (statistics.median(column) for column in zip(*times, strict=True))
                size = page.stat().st_size / 1e6
                print(f"{name}: {size:.1f} MB, read after {read_s:.2f} s, first figure after {shown_s:.2f} s")
            if arguments.pictures:
                take_pictures(browser, reports, arguments.pictures)
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
