"""SVG and HTML as a browser shows them. The pictures that it took are kept in build/pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chromium import Page, browser
from cloudrepo.pictures import html, svg
from cloudrepo.pictures.graph import Graph
from picture_reader import graph
from test_pictures import hostile

# Not on the lab, but of the full run, which installs what is missing.
pytestmark = [pytest.mark.lab, pytest.mark.cost(seconds=4)]

KEPT = Path(__file__).resolve().parents[2] / "build/pictures"
WHITE_PAGE = 6000  # bytes of a picture with nothing on it, and some


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path) as page:
        yield page


def shape() -> Graph:
    return graph(5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2, 3)], online=[0, 2])


def shown_tip(page: Page) -> str:
    return str(
        page.run(
            "[...document.querySelectorAll('.tip')].filter(t => getComputedStyle(t).display != 'none')"
            ".map(t => t.innerText).join('|')"
        )
    )


def test_hovering_shows_addresses_and_nothing_is_loaded(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "ring.html"
    file.write_text(html.draw(shape()), encoding="utf-8")
    page.open(file)
    assert shown_tip(page) == html.HINT
    page.point_at("#node0 .box")
    tip = shown_tip(page)
    assert tip.startswith("vm1\nState running, Worker 10.0.10.1\neth0  10.60.7.101  52:54:00:00:00:01\neth2")
    assert len(page.picture(KEPT / "hover-node.png")) > WHITE_PAGE
    page.point_at("#network1 .label")
    assert shown_tip(page) == "link 1, VLAN 100\nvm1 eth2\nvm2 eth1"
    assert len(page.picture(KEPT / "hover-link.png")) > WHITE_PAGE
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert shown_tip(page) == html.HINT
    assert page.asked_for() == [file.as_uri()]


def test_nodes_have_the_colours_of_state_and_worker(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "ring.html"
    file.write_text(html.draw(shape()), encoding="utf-8")
    page.open(file)
    ask = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.run(ask.format("#node0 circle", "fill")) == "rgb(46, 158, 91)"
    strokes = [page.run(ask.format(f"#node{number} .box", "stroke")) for number in range(3)]
    assert strokes == ["rgb(0, 114, 178)", "rgb(230, 159, 0)", "rgb(204, 121, 167)"]
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run(ask.format(".paper", "fill")) == "rgb(22, 26, 33)"
    assert len(page.picture(KEPT / "dark.png")) > WHITE_PAGE


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_hostile_names_are_shown_and_do_nothing(page: Page, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"hostile.{kind}"
    file.write_text({"svg": svg, "html": html}[kind].draw(hostile()), encoding="utf-8")
    page.open(file)
    assert page.run("document.querySelectorAll('.node').length") == 8
    assert page.run("document.querySelectorAll('script, img, a, iframe, object').length") == 0
    assert page.run("document.querySelector('#node0 title').textContent").startswith('"><script>alert(1)</script>\n')
    told = [event["method"] for event in page.events if "method" in event]
    assert not {"Page.javascriptDialogOpening", "Runtime.exceptionThrown"} & set(told)
    assert page.asked_for() == [file.as_uri()]
    assert len(page.picture(KEPT / f"hostile-{kind}.png")) > WHITE_PAGE


def test_an_svg_is_all_within_its_frame(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "ring.svg"
    file.write_text(svg.draw(shape()), encoding="utf-8")
    page.open(file, 1600, 1200)
    outside = page.run(
        "(f => [...document.querySelectorAll('.box, .hub, text')].filter(e => (b => b.left < f.left || "
        "b.right > f.right || b.top < f.top || b.bottom > f.bottom)(e.getBoundingClientRect()))"
        ".map(e => e.outerHTML))(document.documentElement.getBoundingClientRect())"
    )
    assert outside == []
    assert len(page.picture(KEPT / "ring-svg.png")) > WHITE_PAGE
