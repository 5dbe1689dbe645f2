"""Look at the built site in a browser: `python -m tests.site SITE [PAGE ...]` (`pip install -e '.[site]'`).

Every page, or those whose names begin as given, at the width of a phone, light, and of a desk, dark: nothing to
scroll sideways, formulas set, a text for every picture, no request that leaves the site, and no serious or critical
fault that axe-core finds. And without a browser: every link leads to a page and a place on it, and every public name
is in the inventory.
"""

import argparse
import importlib
import inspect
import shutil
import sys
import zlib
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from tests.test_layers import public_modules

VIEWS = [(390, "light"), (1280, "dark")]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]

SEEN = """() => {
  const bare = [...document.querySelectorAll("article :is(p, li, td, dd)")].filter(
    node => [...node.childNodes].some(text => text.nodeType == 3 && /\\$\\$|\\\\[([]/.test(text.data)));
  const wide = [...document.querySelectorAll("article *")].filter(
    node => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest("pre, .table-wrapper"));
  return {
    sideways: document.documentElement.scrollWidth > innerWidth
      ? "wider than the window: " + wide.slice(0, 3).map(n => n.tagName + "." + n.className) : "",
    formulas: document.querySelectorAll(".math").length > document.querySelectorAll("mjx-container").length
      ? "formulas that are not set" : "",
    error: document.querySelector("mjx-merror, [data-mjx-error]") ? "a formula with an error" : "",
    bare: bare.length ? "raw formula: " + bare[0].textContent.slice(0, 60) : "",
    silent: [...document.images].some(image => !image.alt.trim()) ? "a picture without a text" : "",
  };
}"""


def faults_seen(page: Page, path: Path) -> set[str]:
    """What is wrong with a page in any of the views."""
    faults = set()
    page.goto(path.as_uri())
    page.evaluate("() => window.MathJax?.startup?.promise")
    for width, scheme in VIEWS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.wait_for_timeout(100)  # furo sets its colours when the scheme has changed
        faults |= {f"{fault} (at {width})" for fault in page.evaluate(SEEN).values() if fault}
        for found in Axe().run(page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                places = ", ".join(str(node["target"][0]) for node in found["nodes"][:3])
                faults.add(f"{found['id']} ({len(found['nodes'])} at {width}): {places}")
    return faults


class Anchors(HTMLParser):
    """The places and the links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links = {"", "top"}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id") or "")
        self.links += [link for name in ("href", "src") if (link := values.get(name)) and tag != "base"]


def broken_links(site: Path) -> list[str]:
    pages = {path.resolve(): Anchors(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            place = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not place.exists() or (place in pages and unquote(target.fragment) not in pages[place].ids):
                broken.append(f"{path.relative_to(site)}: {link} leads nowhere")
    return broken


ELSEWHERE = {
    *(f"emroute.cli.{name}.{name}" for name in ("check", "demo", "fit")),  # a page has their options
    *(f"emroute.nn.{framework}.layers.{name}" for framework in ("flax", "torch") for name in ("Layer", "complete")),
    "emroute.capsule.self_routing.SelfRouting",  # on the page of a module that has the name of a function
}
"""Functions and classes that are told of without an entry of their own."""


def unlisted_names(site: Path) -> list[str]:
    """Public functions and classes that are on no page; names of one object stand for each other."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    names = defaultdict(set)
    for module in map(importlib.import_module, public_modules()):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                names[id(value)].add(f"{module.__name__}.{name}")
    known = documented | ELSEWHERE
    return [f"objects.inv: nothing about {min(those)}" for those in names.values() if not those & known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*", help="the first letters of pages, such as api/index or howto")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="by default chromium, or playwright's own")
    options = parser.parse_args()
    site = options.site.resolve()
    pages = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    pages = [path for path in pages if path.relative_to(site).as_posix().startswith(tuple(options.pages) or "")]
    faults = broken_links(site) + unlisted_names(site)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.browser, args=QUIET)
        page = browser.new_page()
        outside = set()
        page.on("request", lambda request: outside.update({request.url} if "file" not in request.url[:5] else ()))
        for path in pages:
            outside.clear()
            found = faults_seen(page, path) | {f"asks for {url}" for url in outside if not url.startswith("data:")}
            faults += [f"{path.relative_to(site)}: {fault}" for fault in sorted(found)]
        browser.close()
    print(*faults, f"{len(pages)} pages, {len(faults)} faults", sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
