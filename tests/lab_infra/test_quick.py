"""What the lab refuses, in which words, and what it writes. Nothing here starts a lab."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloudrepo.settings import DEFAULT_FLAVORS, Settings
from lab import packages
from lab.cli import app
from lab.errors import LabError
from lab.initramfs import unsigned
from lab.layout import IMAGE_FOLDER, ROUTER_IMAGE_NAME, Folder, Options, address_of
from lab.machine import require_root
from lab.namespaces import CHECKOUT
from lab.record import Record
from lab.state import default_database, write_missing


def test_without_root_it_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError) as caught:
        require_root("lab up")
    assert str(caught.value).splitlines() == [
        "The lab makes namespaces and network cables, which needs root.",
        "Run it as: sudo ./cloud lab up",
    ]


@pytest.mark.parametrize("words", [["up"], ["down"], ["status"], ["exec", "--", "true"], ["kill", "10.0.10.1"]])
def test_every_command_refuses_without_root(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("CLOUDREPO_LAB_DIR", str(tmp_path / "lab"))
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "needs root" in result.output
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("values", [{"workers": 0}, {"workers": 9}, {"cores": 0}, {"ram_gb": -1}, {"uplink": "x"}])
def test_sizes_have_limits(values: dict[str, int]) -> None:
    with pytest.raises(LabError):
        Options(**values)  # type: ignore[arg-type]  # a wrong value is the point


@pytest.mark.parametrize(("workers", "node"), [(1, 1), (2, 2), (3, 3), (8, 3)])
def test_the_network_node_is_the_third_or_the_last(workers: int, node: int) -> None:
    nodes = Options(workers=workers).nodes()
    assert [host.number for host in nodes if host.is_network_node] == [node]


def test_a_host_outside_the_lab_is_unknown() -> None:
    with pytest.raises(LabError, match=r"it has 10\.0\.10\.1, 10\.0\.10\.2"):
        address_of("10.0.10.3", Options(workers=2).nodes())


def test_missing_packages_without_a_terminal_stop_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.PACKAGES, "no-such-package", "/no/such/file")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(LabError) as caught:
        packages.ensure(["no-such-package"])
    assert caught.value.remedy.endswith("apt-get install --yes --no-install-recommends no-such-package")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mark": "x"}', '{"rooms": {}, "options": {"workers": 99}}'])
def test_a_spoiled_record_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text(text, encoding="utf-8")
    assert Record.load(path) is None


def test_a_fresh_labs_database_is_the_shipped_one() -> None:
    assert default_database(Options()) == (CHECKOUT / "database.yaml").read_text(encoding="utf-8")
    assert "- 10.0.10.8\n" in default_database(Options(workers=8))


def test_a_module_for_the_guest_has_no_signature_and_is_otherwise_the_same() -> None:
    module, signature = b"\x7fELF a driver", b"PKCS7" * 100
    facts = bytes(8) + len(signature).to_bytes(4, "big")
    signed = module + signature + facts + b"~Module signature appended~\n"
    assert unsigned(signed) == module == unsigned(module)


def test_a_lab_with_routers_offers_their_flavor_beside_the_documented_two(tmp_path: Path) -> None:
    said: list[str] = []
    plain, routed = Folder(tmp_path / "plain"), Folder(tmp_path / "routed")
    write_missing(plain, Options(), said.append)
    write_missing(routed, Options(router=True, workers=2), said.append)
    assert not (plain.state / "settings.yaml").exists() and said == []
    settings = Settings.load(routed.state / "database.yaml")
    assert {name: settings.flavors[name] for name in DEFAULT_FLAVORS} == DEFAULT_FLAVORS
    assert settings.flavors["router"]["image"] == str(IMAGE_FOLDER / ROUTER_IMAGE_NAME)
    assert settings.network.node == "10.0.10.2"
    # A state folder of before is the orchestrator's: it is said what it lacks.
    write_missing(plain, Options(workers=2), said.append)
    write_missing(plain, Options(router=True, workers=2), said.append)
    assert "has no flavor router" in said[-1] and "router.qcow2" in said[-1]
