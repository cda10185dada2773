"""`./cloud`: makes its environment once, says what it lacks, installs system packages only where it may."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON = """#!/bin/bash
# A Python that only tells what it is asked; FOUND is its version, TALE the file it writes to.
echo "python $*" >> "$TALE"
case "$*" in
    *sys.version_info*) [[ $FOUND != old ]] ;;
    *'import ensurepip'*) [[ -e $HAS_VENV ]] ;;
    '-m venv'*) mkdir -p "${!#}/bin" && cp "$0" "${!#}/bin/python" ;;
    --version) echo 'Python 3.9.2' ;;
    *main.py*) echo "main: ${*:2}" ;;
esac
"""
APT = """#!/bin/bash
echo "apt-get $*" >> "$TALE"
touch "$HAS_VENV"
"""


class Checkout:
    """A copy of the wrapper with a Python and an apt-get that only tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tale = folder / "tale"
        self.tools = folder / "tools"
        self.tools.mkdir()
        shutil.copy(CHECKOUT / "cloud", folder / "cloud")
        for name in ("requirements.txt", "requirements-dev.txt"):
            (folder / name).write_text(f"{name}\n")
        for name, text in (("python3", PYTHON), ("apt-get", APT)):
            self.tool(name, text)
        for name in ("bash", "mkdir", "cp", "touch", "readlink", "flock", "cat"):
            (self.tools / name).symlink_to(str(shutil.which(name)))
        (folder / "has-venv").touch()

    def tool(self, name: str, text: str) -> None:
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {
            "PATH": str(self.tools),
            "TALE": str(self.tale),
            "HAS_VENV": str(self.folder / "has-venv"),
            "CLOUDREPO_PYTHON": str(self.tools / "python3"),
        }
        return subprocess.run(
            (str(self.folder / "cloud"), *words),
            env=known | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def told(self) -> list[str]:
        return self.tale.read_text().splitlines() if self.tale.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def count(told: list[str], what: str) -> int:
    return sum(what in line for line in told)


def test_the_environment_is_made_once_and_again_when_the_pins_change(checkout: Checkout) -> None:
    assert checkout.run("status").stdout == "main: status\n"
    assert checkout.run("status").stdout == "main: status\n"
    assert (count(checkout.told, "-m venv"), count(checkout.told, "-m pip")) == (1, 1)
    (checkout.folder / "requirements.txt").write_text("other pins\n")
    assert checkout.run("status").stdout == "main: status\n"
    assert (count(checkout.told, "-m venv"), count(checkout.told, "-m pip")) == (1, 2)


def test_when_all_is_there_nothing_but_main_is_started(checkout: Checkout) -> None:
    checkout.run()
    before = len(checkout.told)
    checkout.run("a", "b c")
    assert checkout.told[before:] == [f"python {checkout.folder}/main.py a b c"]


def test_the_tools_of_the_tests_are_installed_for_the_tests_only(checkout: Checkout) -> None:
    checkout.run("status")
    assert count(checkout.told, "requirements-dev.txt") == 0
    checkout.run("test")
    assert count(checkout.told, "requirements-dev.txt") == 1


def test_it_works_through_a_symbolic_link_and_from_elsewhere(checkout: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(checkout.folder / "cloud")
    done = subprocess.run(
        (str(link), "x"),
        cwd="/",
        env={"PATH": str(checkout.tools), "TALE": str(checkout.tale), "HAS_VENV": str(checkout.folder / "has-venv")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "main: x\n", done.stderr


def test_an_old_python_is_said_in_a_sentence(checkout: Checkout) -> None:
    for name in ("python3.11", "python3.12", "python3.13"):
        checkout.tool(name, "#!/bin/bash\nexit 1\n")
    wrapper = (checkout.folder / "cloud").read_text().replace("/usr/bin/python3 ", "")
    (checkout.folder / "cloud").write_text(wrapper)
    done = checkout.run("status", FOUND="old")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; Python 3.9.2 was found" in done.stderr


@pytest.mark.parametrize("words", [["status"], [], ["lab", "status"], ["worker", "add", "-y"]])
def test_other_commands_never_install_system_packages(checkout: Checkout, words: list[str]) -> None:
    (checkout.folder / "has-venv").unlink()
    done = checkout.run(*words, CI="true")
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr
    assert count(checkout.told, "apt-get") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user it goes by sudo")
@pytest.mark.parametrize(
    ("words", "environment", "installs"),
    [
        (["demo"], {}, False),
        (["demo", "-y"], {}, True),
        (["test"], {"CI": "true"}, True),
        (["lab", "up"], {}, False),
        (["lab", "up", "--yes"], {}, True),
        (["lab", "up", "--", "-y"], {}, False),
    ],
)
def test_three_commands_install_what_is_missing_with_leave(
    checkout: Checkout, words: list[str], environment: dict[str, str], installs: bool
) -> None:
    (checkout.folder / "has-venv").unlink()
    done = checkout.run(*words, **environment)
    assert count(checkout.told, "apt-get") == (2 if installs else 0)
    assert done.returncode == (0 if installs else 1)
    if not installs:
        assert "apt-get install python3-venv" in done.stderr


def test_a_failed_installation_of_pins_is_tried_again(checkout: Checkout) -> None:
    checkout.tool("python3", PYTHON.replace("case ", '[[ $* != *"-m pip"* || -e "$HAS_VENV.2" ]] || exit 1\ncase ', 1))
    failed = checkout.run("status")
    assert failed.returncode == 1
    assert "could not be installed" in failed.stderr
    (checkout.folder / "has-venv.2").touch()
    assert checkout.run("status").stdout == "main: status\n"


def test_two_first_starts_make_one_environment(checkout: Checkout) -> None:
    slow = PYTHON.replace("'-m venv'*)", "'-m venv'*) read -rt 0.5 <> <(:) || true;")
    checkout.tool("python3", slow)
    known = {
        "PATH": str(checkout.tools),
        "TALE": str(checkout.tale),
        "HAS_VENV": str(checkout.folder / "has-venv"),
        "CLOUDREPO_PYTHON": str(checkout.tools / "python3"),
    }
    starts = [
        subprocess.Popen((str(checkout.folder / "cloud"), "x"), env=known, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [start.communicate(timeout=30)[0] for start in starts] == ["main: x\n"] * 3
    assert count(checkout.told, "-m venv") == 1
