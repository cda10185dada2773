"""The menu in a real terminal, cell by cell: golden screens, sizes, colours, other terminals, other processes.

Golden screens are tests/golden/screens/*.txt; `CLOUDREPO_WRITE_GOLDEN=1` writes those that differ.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import pytest

import contrast
from database import Database
from menu_process import PASSWORD
from menu_terminal import CHOOSE, CTRL_C, DOWN, ENTER, ESC, TAB, UP, Terminal, menu

GOLDEN = Path(__file__).parent / "golden/screens"
README_PICTURE = Path(__file__).resolve().parent.parent / "docs/pictures/menu.svg"
SIZES = ((80, 24), (120, 40))
COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-7]|38|4[0-7]|48|9[0-7])(?:;[0-9]+)*m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation whose hosts do what they are told at once."""
    (tmp_path / "gate").touch()
    return tmp_path


def golden(name: str, terminal: Terminal) -> None:
    """Wait until the screen is what is kept of it; or keep it, once nothing on it changes any more."""
    path = GOLDEN / f"{name}-{terminal.screen.columns}x{terminal.screen.lines}.txt"
    if os.environ.get("CLOUDREPO_WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        before = ""
        while terminal.text != before:
            before = terminal.text
            terminal.read(3.0)
        path.write_text(before.rstrip("\n") + "\n", encoding="utf-8")
    kept = path.read_text(encoding="utf-8").rstrip("\n")
    terminal.until(lambda: terminal.text.rstrip("\n") == kept, f"the screen of {path.name}")


def new_ring(terminal: Terminal, size: int = 3) -> None:
    """The guided lab: everything but shape and size as suggested."""
    terminal.choose("9")
    terminal.answer("Shape:", "ring")
    terminal.answer("Machines (3 to 20):", str(size))
    terminal.answer("Flavor:", "")
    terminal.answer("Who reaches the internet:", "nobody else")  # no such word: asked again
    terminal.shows("Please choose 1 to 3")
    terminal.answer("Who reaches the internet:", "2")
    terminal.asks("Make these")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_golden_screens(folder: Path, columns: int, rows: int) -> None:
    with menu(folder, columns=columns, rows=rows) as terminal:
        terminal.log_in("ann")
        terminal.shows("ann | VMs 0 of 10 | workers 3 up")
        golden("menu", terminal)
        terminal.send(DOWN)
        terminal.matches(r"Choose: 1\s*\n\s+1 +Cluster status")
        golden("choices", terminal)
        terminal.send(ESC)
        terminal.until(lambda: "     Cluster status" not in terminal.text, "the list to close")
        terminal.send("\x15")
        new_ring(terminal)
        golden("new-lab", terminal)
        terminal.send(ENTER)
        terminal.answer("Slice name:", "")
        terminal.asks(CHOOSE)
        terminal.shows("ann | VMs 3 of 10 | slice 1000 design | workers 3 up")
        golden("made", terminal)
        terminal.choose("10")
        terminal.answer("Slice ID [1000]:", "")
        terminal.shows("link 3  vm3 eth2 ── vm1 eth2")
        terminal.asks(CHOOSE)
        golden("drawing", terminal)
        terminal.choose("5")
        terminal.until(lambda: "  └─ VM 1003: vm3" in terminal.past, "the last machine")
        terminal.until(lambda: "└───" in terminal.text and terminal.prompt == CHOOSE.rstrip(), "the menu again")
        golden("view", terminal)
        terminal.choose("help")
        terminal.shows("A first lab: 9")
        terminal.asks(CHOOSE)
        golden("help", terminal)
        terminal.choose("3")
        terminal.asks("Slice ID [1000]:")
        terminal.send("x")
        terminal.shows("an ID is a number.")
        golden("typed", terminal)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_golden_views_of_five_and_of_twelve_machines(folder: Path, columns: int, rows: int) -> None:
    """The second has a machine that was given up, and says why."""
    with menu(folder, columns=columns, rows=rows) as terminal:
        terminal.log_in("ann")
        with Database(folder / "database.yaml").transaction() as data:
            data["users"]["ann"]["quota_vms"] = 17
        for shape, size, name in (("ring", 5, "five"), ("tree", 12, "twelve")):
            terminal.choose("9")
            terminal.answer("Shape:", shape)
            terminal.answer("Machines (", str(size))
            terminal.answer("Flavor:", "")
            terminal.answer("Who reaches the internet:", "all")
            terminal.asks("Make these")
            terminal.send(ENTER)
            terminal.answer("Slice name:", "")
            terminal.asks(CHOOSE)
            with Database(folder / "database.yaml").transaction() as data:
                record = next(one for one in data["slices"].values() if one["name"] == f"{shape} 1")
                record["vms"][-1] |= {"status": "error", "error": "restarted 5 times in 10 minutes"}
            terminal.choose("5")
            terminal.until(lambda last=f": vm{size} (VNC": last in terminal.past, "the last machine")
            terminal.until(lambda: "└" in terminal.text and terminal.prompt == CHOOSE.rstrip(), "the menu again")
            terminal.shows(f"VMs {17 if size == 12 else 5} of 17")
            golden(f"view-{name}", terminal)
        assert re.search(
            r"  └─ VM 10\d\d: vm12 \(VNC: 59\d\d, Worker: 10\.0\.10\.\d, Disk: 1 GB, error\)\n"
            r" +restarted 5 times in 10 minutes\n"
            r" +eth0: 52:54:00:[0-9a-f:]{8}, VLAN 400, internet, 10\.60\.7\.\d+\n"
            r" +eth1: 52:54:00:[0-9a-f:]{8}, VLAN \d+, link 11 to vm6 eth2, 192\.168\.\d+\.11\n",
            terminal.past,
        )


@pytest.mark.parametrize(("size", "shapes"), [(SIZES[0], ("tree", "star", "bus")), (SIZES[1], ("star",))])
def test_a_new_lab_of_twelve_machines_leaves_room_for_its_questions(
    folder: Path, size: tuple[int, int], shapes: tuple[str, ...]
) -> None:
    """The whole drawing is seen with the question under it, and with why its answer cannot be used."""
    columns, rows = size
    with menu(folder, columns=columns, rows=rows) as terminal:
        terminal.log_in("ann")
        with Database(folder / "database.yaml").transaction() as data:
            data["users"]["ann"]["quota_vms"] = 17
        for shape in shapes:
            terminal.choose("9")
            for prompt, words in (("Shape:", shape), ("Machines (", "12"), ("Flavor:", ""), ("Who reaches", "all")):
                terminal.answer(prompt, words)
            terminal.asks("Make these 12 cirros machines")
            terminal.shows("| VMs 0 of 17 |")
            golden(f"new-{shape}-of-twelve", terminal)
            terminal.send("maybe")
            terminal.shows("Please answer y or n.")
            assert re.search(r"\bvm1\b", terminal.text) and re.search(r"\bvm12\b", terminal.text)
            terminal.send(ESC)


def test_link_by_link_all_of_the_drawing_is_seen_above_the_next_question(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("9")
        for prompt, words in (("Shape:", "custom"), ("Machines (", "12")):
            terminal.answer(prompt, words)
        terminal.send("".join(f"1-{other}{ENTER}" for other in range(2, 13)))
        terminal.until(lambda: "vm12" in terminal.text and terminal.prompt == "Link: done", "the question for the 12th")
        assert [name for name in range(1, 13) if not re.search(rf"\bvm{name}\b", terminal.text)] == []


def test_what_was_asked_for_is_not_pushed_away_by_the_menu(folder: Path) -> None:
    (folder / "design").touch()
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("25")
        terminal.answer("How many [15]:", "3")
        terminal.shows("0. Exit")
        terminal.shows("1. Cluster status")  # there is room for both
        terminal.choose("5")
        terminal.shows("28. Help   0. Exit   Enter shows all entries")
        terminal.asks(CHOOSE)
        assert "Slice 1000 [design]" in terminal.text and "1. Cluster status" not in terminal.text
        terminal.send(ENTER)
        terminal.shows("1. Cluster status")
        terminal.asks(CHOOSE)
        assert "Please type an answer" not in terminal.text


def test_an_administrators_menu_at_80x24(folder: Path) -> None:
    with menu(folder, user="admin", role="admin") as terminal:
        terminal.log_in("admin")
        terminal.shows("admin (admin) | VMs 0 of 10 | workers 3 up")
        golden("menu-admin", terminal)
        assert "22. Verify" in terminal.text and "24. Users" in terminal.text


def test_a_student_is_not_offered_what_is_not_for_him(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        assert not any(words in terminal.text for words in ("Verify", "Drift", "Users"))
        terminal.choose("22")
        terminal.shows("There is no 22 in the menu.")


def test_names_beginnings_arrows_completion_and_history(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("create slice")
        terminal.answer("Slice name:", "first")
        terminal.shows("Slice created! ID: 1000")
        terminal.choose("cre")  # two begin so
        terminal.shows("cre may be 2. Create Slice or 4. Create Link between VMs.")
        terminal.asks(CHOOSE)
        terminal.send(UP)
        terminal.shows("Choose: cre")
        terminal.send(UP + UP)
        terminal.shows("Choose: create slice")
        terminal.send("\x15" + DOWN + DOWN + ENTER)  # the second in the list
        terminal.asks("Slice name:")
        terminal.send(UP)
        terminal.shows("Slice name: first")
        terminal.send("\x15second" + ENTER)
        terminal.shows("Slice created! ID: 1001")
        terminal.choose("3")
        terminal.asks("Slice ID [1001]:")
        terminal.send("1000" + TAB)
        terminal.shows("“first” [design]")


def test_no_password_is_in_a_history(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("27")
        terminal.answer("New password:", "correct horse")
        terminal.answer("Again:", "battery staple")
        terminal.shows("nothing was changed")
        for number in ("27", "2", "3"):
            terminal.asks(CHOOSE)
            terminal.send(number + ENTER)
            terminal.until(lambda: CHOOSE.rstrip() not in terminal.prompt or "no slices" in terminal.text, "it")
            terminal.send(UP + UP + ESC)
        terminal.asks(CHOOSE)
        assert "horse" not in terminal.past and "staple" not in terminal.past


def test_an_answer_is_checked_as_it_is_typed(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("2")
        terminal.answer("Slice name:", "lab")
        terminal.choose("3")
        terminal.asks("Slice ID [1000]:")
        terminal.send("x")
        terminal.shows("None of your slices is x; an ID is a number.")
        terminal.send("\x15" + ENTER)
        terminal.asks("VM name: vm1")  # the suggestion
        terminal.send("9a")
        terminal.shows("a VM cannot be named '9a'. A name is a letter, then up to 30 letters, digits, -\nor _\n")
        terminal.send("\x15" + ENTER)
        terminal.answer("Flavor:", "")
        terminal.asks("Data interfaces:")
        terminal.send("16")
        terminal.shows("It is 15 at most; found 16.")
        terminal.send("\x152" + ENTER)
        terminal.answer("Internet access (y/n):", "n")
        terminal.shows("VM added! ID: 1001")


def test_a_resize_is_followed(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.shows("ann | VMs 0 of 10")
        for columns, rows in ((120, 40), (60, 15), (200, 60), (80, 24)):
            terminal.resize(columns, rows)
            terminal.send("2" + ENTER)
            terminal.asks("Slice name:")
            terminal.send(ESC)
            terminal.asks(CHOOSE)
            terminal.until(lambda rows=rows: terminal.lines[rows - 1].startswith("ann | VMs"), "the status at the foot")
            assert max(map(len, terminal.lines)) <= columns


def test_what_another_process_changes_shows_up(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("2")
        terminal.answer("Slice name:", "lab")
        terminal.shows("slice 1000 design")
        with Database(folder / "database.yaml").transaction() as data:
            data["slices"]["1000"] |= {"name": "changed elsewhere", "error": "a worker burnt down", "status": "error"}
            data["users"]["ann"]["quota_vms"] = 7
        terminal.shows("VMs 0 of 7 | slice 1000 error")  # without a key
        terminal.choose("5")
        terminal.shows("changed elsewhere")
        terminal.shows("last error: a worker burnt down")


def test_what_is_wrong_is_in_the_status(folder: Path) -> None:
    with menu(folder) as terminal:
        terminal.log_in("ann")
        terminal.choose("2")
        terminal.answer("Slice name:", "lab")
        terminal.shows("slice 1000 design")
        with Database(folder / "database.yaml").transaction() as data:
            data["slices"]["1000"]["operation"] = {
                "number": 9, "kind": "deploy", "who": "ann", "began": "2026-01-01T00:00:00Z", "process": "",
                "back": "design",
            }  # fmt: skip
            data["slices"]["1000"]["status"] = "deploying"
        terminal.shows("1 operation unfinished: see 13")


def words_of_svg(file: Path) -> list[str]:
    """The lines of a terminal in a picture, from above, with `#` for each number."""
    rows: dict[float, str] = {}
    for y, words in re.findall(r'<text[^>]* y="([0-9.]+)"[^>]*>([^<]*)</text>', file.read_text(encoding="utf-8")):
        rows[float(y)] = rows.get(float(y), "") + html.unescape(words).replace("\xa0", " ").rstrip("\n")
    return [re.sub(r"\d+(\.\d+)?", "#", rows[y]).rstrip() for y in sorted(rows)]


def test_the_picture_in_the_readme_is_what_the_menu_shows(folder: Path) -> None:
    """But for numbers: a class has others, and so has its lab."""
    with menu(folder, user="admin", role="admin", rows=70) as terminal:
        terminal.log_in("admin")
        terminal.choose("9")
        answers = ("ring", "5", "cirros", "nobody", "y", "my ring")
        for prompt, words in zip(("Shape", "Machines", "Flavor", "Who", "Make", "Slice name"), answers, strict=True):
            terminal.answer(prompt, words)
        terminal.shows("Slice created!")
        terminal.choose("6")
        terminal.answer("Slice ID", "my ring")
        terminal.shows("5 shows addresses, 8 opens a console.")
        shown = re.sub(r"\d+(\.\d+)?", "#", terminal.past).splitlines()
    drawn = [line for line in words_of_svg(README_PICTURE) if line and line != "./cloud"]
    assert len(drawn) > 40
    assert [line for line in drawn if line not in shown] == []


# ── other terminals ─────────────────────────────────────────────────────────────────────────────────────


def walk(terminal: Terminal) -> bytes:
    """A lab made and looked at; what was sent."""
    seen = terminal.listen()
    terminal.log_in("ann")
    new_ring(terminal)
    terminal.send(ENTER)
    terminal.answer("Slice name:", "")
    terminal.choose("5")
    terminal.asks(CHOOSE)
    terminal.choose("0")
    assert terminal.ends() == 0
    return b"".join(seen)


def test_without_colour(folder: Path) -> None:
    with menu(folder, NO_COLOR="1") as terminal:
        sent = walk(terminal)
    assert COLOUR.findall(sent) == []
    assert "┌──" in sent.decode()


def test_a_suggestion_is_faint_also_without_colour(folder: Path) -> None:
    """Else it would look like something that was typed."""
    with menu(folder, NO_COLOR="1") as terminal:
        terminal.log_in("ann")
        terminal.choose("9")
        seen = terminal.listen()
        terminal.answer("Shape:", "")
        terminal.asks("Machines (2 to 21): 3")
    assert re.search(rb"\x1b\[(?:0;)?2m3", b"".join(seen))


@pytest.mark.parametrize("term", ["xterm-256color", "xterm"])
def test_with_colour_all_is_read_on_light_and_on_dark_backgrounds(folder: Path, term: str) -> None:
    with menu(folder, TERM=term) as terminal:
        sent = walk(terminal)
    pairs = set(contrast.sent(sent))
    assert any(foreground is not None and background is None for foreground, background in pairs) is (term != "xterm")
    assert [pair for pair in pairs if contrast.weakest(*pair) < contrast.LEAST] == []


def test_a_dumb_terminal(folder: Path) -> None:
    with menu(folder, TERM="dumb") as terminal:
        sent = walk(terminal)
    assert b"\x1b" not in sent and PASSWORD.encode() not in sent
    assert b"ann | VMs 3 of 10 | slice 1000 design" in sent


def test_esc_and_ctrl_c_on_a_dumb_terminal(folder: Path) -> None:
    with menu(folder, TERM="dumb") as terminal:
        terminal.log_in("ann")
        for keys in (ESC + ENTER, CTRL_C):
            terminal.choose("2")
            terminal.asks("Slice name:")
            terminal.send(keys)
            terminal.asks(CHOOSE)


def test_a_terminal_without_unicode(folder: Path) -> None:
    with menu(folder, LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as terminal:
        sent = walk(terminal)
    text = sent.decode("ascii")
    assert ".-------------." in text and "  `- VM 1001: vm1" in text
    assert "\\u" not in text


def test_questions_and_offers_without_unicode(folder: Path) -> None:
    (folder / "design").touch()
    with menu(folder, LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as terminal:
        terminal.log_in("ann")
        terminal.choose("7")
        terminal.asks("Slice ID [1000]:")
        terminal.send(TAB)
        terminal.matches(r'1000 +"lab" \[design\]: 2 VMs, 1 link')
        terminal.send(ENTER)
        terminal.asks('Delete slice 1000 "lab" [design]')


# ── ways out ────────────────────────────────────────────────────────────────────────────────────────────


def test_no_key_starts_a_program_or_stops_the_menu(folder: Path) -> None:
    keys = ("\x1a", "\x18\x05", "\x1b!", "\x1bOP", "\x12", "\x1b:", "\x1bx", "\x18\x06", "\x0f", "\x16")
    with menu(folder) as terminal:
        terminal.log_in("ann")
        for number, key in enumerate(keys, 1):
            terminal.asks(CHOOSE)
            terminal.send(f"{key}\x07\x15!sh{ENTER}")
            terminal.until(lambda number=number: terminal.past.count("in the menu.") == number, f"{number} answers")
        process = terminal.child.pid
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        assert state not in ("T", "t", "Z")
        assert Path(f"/proc/{process}/task/{process}/children").read_text() == ""
        terminal.choose("0")
        assert terminal.ends() == 0
