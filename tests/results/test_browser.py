"""The page as a browser shows it: offline, by keyboard, on a phone, in light and dark."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By

from ablate.results.report import report

PROGRAMS = tuple(filter(None, (shutil.which("chromium"), shutil.which("chromedriver"))))
pytestmark = pytest.mark.skipif(
    len(PROGRAMS) < 2, reason="no chromium and chromedriver here: apt-get install chromium chromium-driver"
)
PHONE, DESK = (390, 844), (1200, 900)
SHOTS = os.environ.get("ABLATE_SCREENSHOTS")  # a folder: what the tests saw is kept there


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = PROGRAMS[0]
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(option)
    found = Chrome(options=options, service=ChromeService(PROGRAMS[1]))
    yield found
    found.quit()


@pytest.fixture
def page(fabricate, tmp_path: Path, browser: Chrome) -> Path:
    """A study with factors, a walk, a failed run and enough seeds for intervals, opened from its file."""
    accuracies = {
        name: {seed: top1 + (0.3 * seed * seed) % 1 for seed in range(5)}
        for name, top1 in (("lsa", 80.0), ("lsa_neighborhood", 82.0), ("elsa", 83.5), ("dwconv", 81.5))
    }
    accuracies["dwconv"][4] = ("failed", "CUDA out of memory. " * 20)
    fabricate(accuracies, paths={"walk": ["lsa", "lsa_neighborhood", "elsa"]}, question="Which one?")
    found = report(tmp_path, "quick")[0]
    browser.get_log("performance")
    browser.get(found.as_uri())
    return found


def look(browser: Chrome, size: tuple[int, int], scheme: str) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    if SHOTS:
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**metrics, "height": height})
        browser.save_screenshot(str(Path(SHOTS) / f"{scheme}-{size[0]}.png"))


def test_it_asks_for_nothing_but_itself_and_says_no_error(page: Path, browser: Chrome) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("size", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read(
    page: Path, browser: Chrome, size: tuple[int, int], scheme: str
) -> None:
    look(browser, size, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    if size == DESK:  # the last column, of p, is in sight
        table = "document.querySelector('table').parentElement"
        assert browser.execute_script(f"return {table}.scrollWidth <= {table}.clientWidth")
    ink, paper = (
        browser.execute_script(f"return getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert contrast(ink, paper) > 7  # WCAG's AAA
    assert (luminance(paper) > 0.5) == (scheme == "light")
    quiet = browser.find_element(By.CSS_SELECTOR, ".quiet").value_of_css_property("color")
    assert contrast(quiet, paper) > 4.5
    text = browser.find_element(By.CSS_SELECTOR, ".drawing svg")
    assert text.size["width"] >= 300


def test_tables_are_sorted_by_keyboard(page: Path, browser: Chrome) -> None:
    look(browser, DESK, "light")
    table = browser.find_element(By.CSS_SELECTOR, "table.sortable")

    def names() -> list[str]:
        return [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "tbody th")]

    assert names() == ["lsa", "lsa_neighborhood", "elsa", "dwconv"]
    buttons = table.find_elements(By.CSS_SELECTOR, "thead button")
    wanted = next(button for button in buttons if button.text.startswith("Test top-1"))
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element == wanted:
            break
    focused = browser.switch_to.active_element
    assert focused == wanted, "the button is not reached by the tabulator"
    assert focused.value_of_css_property("outline-style") == "solid"
    focused.send_keys(Keys.ENTER)
    assert names() == ["lsa", "dwconv", "lsa_neighborhood", "elsa"]
    focused.send_keys(Keys.SPACE)
    assert names() == ["elsa", "lsa_neighborhood", "dwconv", "lsa"]
    header = focused.find_element(By.XPATH, "..")
    assert header.get_attribute("aria-sort") == "descending"


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
