"""Translations of the site's pages are kept in step with the English text."""

import hashlib
import re
from itertools import pairwise
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "zh").rglob("*.md"))
FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def source(page: Path) -> Path:
    """The English page that a translation is of; folders below ``zh`` mirror those of the site."""
    return DOCS / page.relative_to(DOCS / "zh")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Name a text, its lists of pages aside: they are not translated."""
    text = FENCE.sub(lambda block: "" if block["kind"] == "{toctree}" else block[0], text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def programs(text: str) -> list[tuple[str, str]]:
    """All code, in order; descriptions of pictures aside, which are translated."""
    found = [(block["kind"], block["text"]) for block in FENCE.finditer(text) if block["kind"] != "{toctree}"]
    return [(kind, re.sub(r"\A---\n.*?^---\n", described, code, flags=re.M | re.S)) for kind, code in found]


def described(header: re.Match) -> str:
    return re.sub(r"^( +alt:) \S.*$", r"\1 ...", header[0], flags=re.MULTILINE)


def outline(text: str) -> list[str]:
    """The levels of the headings, in order."""
    return re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)


def formulas(text: str) -> list[str]:
    """The displayed formulas, in order."""
    return re.findall(r"^\$\$\n(.*?)^\$\$$", FENCE.sub("", text), re.MULTILINE | re.DOTALL)


def citations(text: str) -> list[str]:
    return sorted(re.findall(r"\{cite:\w+\}`\w+`", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
class TestTranslation:
    def test_it_is_of_the_text_as_it_is_now(self, page):
        stated = re.search(r"\A---\n(?:.*\n)*?source_sha256: (\w+)\n(?:.*\n)*?---\n", read(page))
        expected = digest(read(source(page)))
        assert stated is not None, f"{page} lacks `source_sha256: {expected}` in its front matter"
        assert stated[1] == expected, (
            f"{source(page)} has changed since {page} was translated. Bring the translation up to date, then write "
            f"`source_sha256: {expected}` in its front matter."
        )

    @pytest.mark.parametrize("part", [programs, outline, formulas, citations], ids=lambda part: part.__name__)
    def test_what_is_not_prose_is_the_same(self, page, part):
        assert part(read(page)) == part(read(source(page)))

    def test_each_links_to_the_other(self, page):
        up = "../" * len(page.relative_to(DOCS).parent.parts)
        english, name = source(page), page.relative_to(DOCS).as_posix()
        down = "../" * len(english.relative_to(DOCS).parent.parts)
        assert f"[English]({up}{english.relative_to(DOCS).as_posix()})" in read(page)
        assert f"[中文]({down}{name})" in read(english)

    def test_its_paragraphs_are_lines(self, page):
        """A line's end would be drawn as a space, which Chinese does not have between words."""
        lines = FENCE.sub("", read(page)).split("\n")
        han = re.compile(r"^[\u4e00-\u9fff]")
        assert not [second for first, second in pairwise(lines) if first and han.match(second)]


def test_there_are_translations():
    assert {page.stem for page in PAGES} >= {"index", "complete", "coins", "jensen", "fisher"}
