"""The site builds with warnings as errors, its links lead somewhere, and a browser can use it offline."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ablate import ops

ROOT = Path(__file__).parents[2]
PROGRAMS = tuple(filter(None, (shutil.which("chromium"), shutil.which("chromedriver"))))
in_browser = pytest.mark.skipif(
    len(PROGRAMS) < 2, reason="no chromium and chromedriver here: apt-get install chromium chromium-driver"
)
PHONE, DESK = (390, 844), (1280, 900)
PAGES = (
    *("index.html", "getting-started.html", "architecture.html", "glossary.html", "concepts/equation.html"),
    *("generated/zoo/index.html", "generated/zoo/elsa.html", "generated/reference/cli.html"),
    *("generated/reference/configuration/infra.html", "generated/reference/python/ablate.ops.html"),
    *("generated/architecture/tour.html", "generated/records/quick.html", "how-to/speed.html"),
    *("generated/tutorials/01_the_two_axes.html", "files/src/ablate/ops/local.py.html"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, without the outputs of its notebooks; one build for all processes of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    output = shared / "site"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            options = ["--builder", "html", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "sphinx",
                    *options,
                    "-d",
                    str(shared / "doctrees"),
                    "docs",
                    str(output),
                ],
                cwd=ROOT,
                env={**os.environ, "ABLATE_DOCS_EXECUTE": "off"},
                capture_output=True,
                text=True,
                timeout=500,
            )
            if done.returncode:
                shutil.rmtree(output, ignore_errors=True)
            assert done.returncode == 0, done.stderr[-5000:]
    return output


class Links(HTMLParser):
    """Targets and anchors of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {}
    for path in site.rglob("*.html"):
        if "_static" not in path.parts:
            pages[path] = Links()
            pages[path].feed(path.read_text(encoding="utf-8"))
    dead, outside = set(), set()
    for page, links in pages.items():
        for link in links.targets:
            parts = urlsplit(link)
            if parts.scheme:
                outside.add(link)
                continue
            target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
            known = pages.get(target)
            if not target.exists() or (parts.fragment and known and parts.fragment not in known.anchors):
                dead.add(f"{page.relative_to(site)}: {link}")
    assert not dead
    assert not {link for link in outside if "pydata-sphinx-theme" not in link}, "the site is for offline use"


def test_every_operator_has_its_page(site: Path) -> None:
    for name in ops.names():
        page = (site / "generated" / "zoo" / f"{name}.html").read_text(encoding="utf-8")
        text = re.sub(r"<[^>]+>", "", page)
        assert f"op={name}" in text or f",{name}" in text
        assert ops.spec(name).channel_setting.split(",")[0].replace("'", "’") in text
        picture = (site / "_images" / f"{name}.svg").read_bytes()
        assert picture.startswith(b"<?xml" if name in ("elsa", "lesa") else b"<")


def test_every_verb_and_every_setting_of_infra_is_in_the_reference(site: Path) -> None:
    from tests.pinned import choices, verbs

    cli = (site / "generated" / "reference" / "cli.html").read_text(encoding="utf-8")
    for prog, arguments in verbs().items():
        if not any(argument.startswith("verbs:") for argument in arguments):
            assert f'id="cli-{prog.replace(" ", "-")}"' in cli
    infra = (site / "generated" / "reference" / "configuration" / "infra.html").read_text(encoding="utf-8")
    for key in choices()["infra"]:
        assert key in infra


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = PROGRAMS[0]
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


def resize(browser: Chrome, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@in_browser
def test_search_finds_a_word(site: Path, browser: Chrome) -> None:
    resize(browser, DESK)
    browser.get((site / "search.html").as_uri() + "?q=involution")
    found = WebDriverWait(browser, 20).until(
        lambda page: page.find_elements(By.CSS_SELECTOR, "#search-results li a")
    )
    assert any("zoo/involution" in str(link.get_attribute("href")) for link in found)


@in_browser
def test_light_and_dark(site: Path, browser: Chrome) -> None:
    resize(browser, DESK)
    browser.get((site / "index.html").as_uri())

    seen = {}
    for mode in ("light", "dark"):
        browser.find_element(By.CSS_SELECTOR, ".theme-switch-button").click()
        choice = f".theme-change-button[data-mode={mode}]"
        WebDriverWait(browser, 10).until(lambda page, choice=choice: clicked(page, choice))
        assert browser.find_element(By.TAG_NAME, "html").get_attribute("data-theme") == mode
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        seen[mode] = sum(int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]) / (3 * 255)
    assert seen["light"] > 0.9
    assert seen["dark"] < 0.2


def clicked(browser: Chrome, selector: str) -> bool:
    """Click the element of a selector that is shown; False if there is none yet."""
    shown = [each for each in browser.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]
    if shown:
        shown[0].click()
    return bool(shown)


@in_browser
@pytest.mark.parametrize("page", PAGES)
def test_nothing_overflows_on_a_phone(site: Path, browser: Chrome, page: str) -> None:
    resize(browser, PHONE)
    browser.get((site / page).as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
