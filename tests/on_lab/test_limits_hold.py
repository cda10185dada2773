"""That cgroup limits hold is seen where a kernel has the controllers: in a guest with the kernel of the lab's guests.

Python and the runner are put beside the guest's own programs; the groups are made by the runner's own act.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.host.programs import text
from lab import guest_image, initramfs
from lab.boot_disk import BOOT_OFFSET
from lab.layout import Folder

pytestmark = pytest.mark.lab
PYTHON = Path("/usr/bin/python3")
PROGRAM = Path(__file__).with_name("limits_in_guest.py")
INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
/usr/bin/python3 -I -S /limits/program.py /limits/runner.py > /dev/ttyS0 2>&1
poweroff -f
"""
BOOT = "console=ttyS0 quiet nokaslr lsm= audit=0 mitigations=off no_timer_check acpi=noirq rdinit=/limits/init panic=-1"


def modules(folder: Path) -> list[Path]:
    """The files of Python's library that both programs import."""
    words = "import sys, encodings.ascii, encodings.latin_1; sys.argv = ['', sys.argv[2]]; "
    words += "import importlib.util as u; s = u.spec_from_file_location('p', sys.orig_argv[-2]); "
    words += "m = u.module_from_spec(s); s.loader.exec_module(m); m.runner(sys.argv[1]); "
    words += "print(*{m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}, sep='\\n')"
    given = [str(PYTHON), "-I", "-S", "-c", words, str(folder / "program.py"), str(folder / "runner.py")]
    told = subprocess.run(given, check=True, capture_output=True, text=True).stdout
    return [Path(line) for line in told.splitlines() if line.startswith("/usr/lib/")]


def with_python(work: Path) -> bytes:
    """What is beside the guest's own programs, as an archive; not packed, which an emulated processor is slow at."""
    root = work / "root"
    (root / "limits").mkdir(parents=True)
    (root / "limits/program.py").write_text(PROGRAM.read_text())
    (root / "limits/runner.py").write_text(text("runner"))
    (root / "limits/init").write_text(INIT)
    (root / "limits/init").chmod(0o755)
    program = PYTHON.resolve()
    for path in (program, *modules(root / "limits")):
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        if path == program or path.suffix == ".so":
            initramfs._copy_libraries(path, root)
    (root / "usr/bin/python3").symlink_to(program.name)
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir()
    return gzip.decompress(initramfs._pack(root, work / "python").read_bytes())


def kernel_and_initrd(work: Path) -> tuple[Path, bytes]:
    """Of the lab's guest."""
    image = guest_image.ensure(Folder.cache())["cirros-0.6.2-x86_64-disk.img"]
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(work / "disk")], check=True)
    place = f"{work / 'disk'}@@{BOOT_OFFSET}"
    for name in ("vmlinuz", "initrd"):
        words = ["mcopy", "-n", "-i", place, f"::/{name}", str(work / name)]
        subprocess.run(words, check=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
    return work / "vmlinuz", gzip.decompress((work / "initrd").read_bytes())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the guest says."""
    work = tmp_path_factory.mktemp("limits")
    kernel, initrd = kernel_and_initrd(work)
    (work / "both").write_bytes(initrd.ljust(-(-len(initrd) // 4) * 4, b"\0") + with_python(work))
    words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "768", "-no-reboot"]
    words += ["-kernel", str(kernel), "-initrd", str(work / "both"), "-append", BOOT, "-serial", "stdio"]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=240)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr
    told: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return told


@pytest.mark.cost(seconds=6)
@pytest.mark.parametrize(
    ("what", "value", "event"),
    [
        ("memory", ["memory.max", str(48 << 20)], "oom_kill 1"),
        ("pids", ["pids.max", "8"], "max 1"),
        ("cpu", ["cpu.max", "20000 100000"], "nr_throttled"),
    ],
)
def test_a_limit_holds_a_process_and_a_wide_one_does_not(
    found: dict[str, Any], what: str, value: list[str], event: str
) -> None:
    tight, wide = found[what]["tight"], found[what]["wide"]
    for one in (tight, wide):
        assert one["confined"] == [0, "", ""] == one["released"] and one["is_gone"], one
    assert tight["seen"]["values"] | dict([value]) == tight["seen"]["values"], tight
    assert any(event in text for text in tight["events"].values()), tight["events"]
    got, all_of_it = tight["got"], wide["got"]
    if what == "memory":
        assert (tight["status"], got) == (-9, "") and (wide["status"], all_of_it) == (0, "120")
    elif what == "pids":
        assert int(got) == 7 and int(all_of_it) == 20
    else:
        assert float(got) < 0.4 < 0.7 < float(all_of_it)


@pytest.mark.cost(seconds=1)
def test_the_kernel_has_what_the_limits_need(found: dict[str, Any]) -> None:
    assert set(found["controllers"].split()) >= {"cpu", "memory", "pids"}
