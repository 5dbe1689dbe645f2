"""The page of benchmarks says of its rows what they say; what is measured is in tests/benchmarks."""

import re
from xml.etree import ElementTree

import pytest

from tests.benchmarks.page import Row, against, amount, digits, labels, table, verdict, write
from tests.benchmarks.sections import SECTIONS, Section

SPEED = Section("Speed", "One step.", ("size",), ", from one start")


def rows(*ratios, peer="a peer", threads=1, section=SPEED):
    return [Row(section, (f"{n} rows",), 0.5, peer, ratio / 2, threads) for n, ratio in enumerate(ratios)]


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ([2.1, 1.1], "faster in 2 of 2, by 1.1 to 2.1 times"),
        (
            [2.1, 1.04, 0.97, 0.5],
            "faster in 1 of 4, by 2.1 times, level in 2 of 4, and slower in 1 of 4, by 2.0 times",
        ),
        ([12.3], "faster, by 12 times"),
        ([1], "level"),
    ],
)
def test_the_verdict_is_that_of_the_ratios(ratios, told):
    assert verdict(rows(*ratios)) == f"emroute is {told}."


def test_each_peer_has_its_verdict():
    both = rows(2, 3) + rows(0.1, peer="numpy")
    first, second = "Against a peer, emroute is faster in 2 of 2, by 2.0 to 3.0 times", "emroute is slower, by 10 times"
    assert verdict(both) == f"{first}; against numpy, {second}."


def test_peers_are_told_with_versions_and_threads():
    assert against(rows(1)) == "The peer is a peer, from one start; both ran on one thread."
    several = rows(1) + rows(1, peer="numpy", threads=2)
    assert re.fullmatch(
        r"The peers are a peer and numpy [\d.]+, from one start; all ran on one and two threads\.", against(several)
    )


def test_the_table_leaves_out_what_is_the_same():
    assert table(rows(2)).splitlines() == [
        "| size | emroute | a peer | ratio |",
        "| --- | --- | --- | --- |",
        "| 0 rows | 500 ms | 1.00 s | 2.00 |",
    ]
    assert table(rows(2) + rows(2, peer="numpy", threads=2)).splitlines()[::3] == [
        "| size | against | threads | emroute | peer | ratio |",
        "| 0 rows | numpy | 2 | 500 ms | 1.00 s | 2.00 |",
    ]
    assert labels(rows(1, 2)) == ["0 rows", "1 rows"]
    assert labels(rows(1) + rows(1, threads=2)) == ["1 thread", "2 threads"]


def test_numbers_have_digits_that_mean_something():
    assert [digits(x, 2) for x in (0.00818, 0.66, 1.27, 177.6)] == ["0.0082", "0.66", "1.3", "178"]
    assert [amount(x, "s") for x in (12.34, 0.0744, 2e-5, 1e-8)] == ["12.3 s", "74.4 ms", "20.0 µs", "0.0100 µs"]
    assert [amount(x, "B") for x in (4e9, 64e6)] == ["4.00 GB", "64.0 MB"]


def test_the_page_has_its_sections_in_order_with_a_chart_each(tmp_path):
    target = tmp_path / "docs" / "benchmarks.md"
    measured = [row for section in reversed(SECTIONS) for row in rows(0.5, 2, section=section)]
    for _ in range(2):  # the second replaces the first
        write(target, measured, rounds=5)
    text = target.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [section.heading for section in SECTIONS]
    charts = re.findall(r"^!\[.+\]\((.*)\)$", text, re.MULTILINE)
    assert len(charts) == len(SECTIONS) == len([*target.parent.rglob("*.svg")])
    for chart in charts:
        ElementTree.parse(target.parent / chart)
