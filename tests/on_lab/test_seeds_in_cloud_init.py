"""Debian's own cloud-init takes our seeds: its `schema` finds no fault, its renderers read how the NICs are named."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import first_boot
from cloudrepo.topology.reading import read
from lab.layout import Folder
from on_lab.debian_cloud_init import CloudInit

pytestmark = [pytest.mark.lab, pytest.mark.cost(seconds=3)]

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.cloud.yml"))
KIND = "ssh-ed25519"
KEY = f"{KIND} {base64.b64encode(struct.pack('>I', 11) + KIND.encode() + bytes(36)).decode()} ann@home"
ODD = "printf '%s\\n' \"$HOME\" ü\t# : - {\n"
WISHES: dict[str, dict[str, Any]] = {
    "keys only": {"ssh_keys": [KEY]},
    "users": {"users": ["ann", "b_2"]},
    "users with keys": {"users": ["ann"], "ssh_keys": [KEY, KEY.replace("ann@home", "o'hare: #1")]},
    "a script": {"start_script": ODD},
    "a script in another language": {"start_script": "#!/usr/bin/perl\nprint 1;\n"},
    "all": {"users": ["ann"], "ssh_keys": [KEY], "start_script": ODD * 100},
    "own document": {"cloud_init": {"packages": ["nginx"], "runcmd": [["echo", "a: b"]]}},
}


@pytest.fixture(scope="module")
def cloud_init() -> CloudInit:
    return CloudInit(Folder.cache())


def seed(wish: Mapping[str, Any], name: str = "web_1") -> dict[str, str]:
    """The files of a seed, of a VM with three NICs."""
    nics = [{"name": f"eth{index}", "mac": f"52:54:00:0a:0b:{index:02x}"} for index in range(3)]
    made = first_boot.of({"name": name, "first_boot": wish, "interfaces": nics}, "11111111-2222-3333-4444-555555555555")
    assert made is not None
    return dict(made.files)


def faults(cloud_init: CloudInit, folder: Path, *documents: str) -> str:
    """What `cloud-init schema` says of documents; an empty text where all are valid."""
    said = ""
    for number, text in enumerate(documents):
        file = folder / f"user-data-{number}"
        file.write_text(text, encoding="utf-8")
        done = cloud_init.run("schema", "--config-file", str(file))
        if done.returncode or "Valid cloud-config" not in done.stdout or "deprecat" in done.stdout:
            said += f"{text}\n{done.stdout}{done.stderr}"
    return said


@pytest.mark.parametrize("wish", WISHES)
def test_the_schema_finds_no_fault(wish: str, cloud_init: CloudInit, tmp_path: Path) -> None:
    assert faults(cloud_init, tmp_path, seed(first_boot.wanted(WISHES[wish]))["user-data"]) == ""


def test_nor_in_the_seeds_of_the_examples(cloud_init: CloudInit, tmp_path: Path) -> None:
    told = [node.first_boot for path in EXAMPLES for node in read(path.read_text("utf-8"), path.name).nodes]
    scripts = {seed(first_boot.wanted(wish))["user-data"] for wish in told if wish}
    assert len(scripts) >= len(EXAMPLES) // 2 and faults(cloud_init, tmp_path, *sorted(scripts)) == ""


def test_it_would_find_one(cloud_init: CloudInit, tmp_path: Path) -> None:
    right = seed(first_boot.wanted(WISHES["users"]))["user-data"]
    assert "lock_passwd: true" in right
    found = faults(cloud_init, tmp_path, right.replace("lock_passwd: true", "lock_passwd: 7"))
    assert "Cloud config schema errors: users" in found and "Valid" not in found


@pytest.mark.parametrize(
    ("kind", "file"),
    [("eni", "etc/network/interfaces.d/50-cloud-init"), ("netplan", "etc/netplan/50-cloud-init.yaml")],
)
def test_its_renderers_read_the_network(kind: str, file: str, cloud_init: CloudInit, tmp_path: Path) -> None:
    """Debian's two: ifupdown and netplan."""
    config = tmp_path / "network-config"
    config.write_text(seed(first_boot.wanted(WISHES["users"]))["network-config"], encoding="utf-8")
    out = tmp_path / "out"
    words = ("-p", str(config), "-k", "yaml", "-d", str(out), "-D", "debian", "-O", kind)
    done = cloud_init.run("devel", "net-convert", *words)
    assert done.returncode == 0, done.stderr
    text = (out / file).read_text(encoding="utf-8")
    for index in range(3):
        assert f"eth{index}" in text
    assert text.count("dhcp") >= 3, text
    if kind == "netplan":
        assert all(f"52:54:00:0a:0b:{index:02x}" in text for index in range(3)), "by their MACs"
    else:
        rules = (out / "etc/udev/rules.d/70-persistent-net.rules").read_text(encoding="utf-8")
        assert all(f"52:54:00:0a:0b:{index:02x}" in rules for index in range(3)), "by their MACs"
