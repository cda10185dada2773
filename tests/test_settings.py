from __future__ import annotations

import math
from pathlib import Path

import pytest

from cloudrepo.errors import SettingsError
from cloudrepo.settings import Settings, rows, settings_table


def load(folder: Path, text: str = "", **environ: str) -> Settings:
    if text:
        (folder / "settings.yaml").write_text(text)
    return Settings.load(folder / "database.yaml", environ)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings()
    assert Settings().ssh.user == "ubuntu"
    assert Settings().internet.dns == "8.8.8.8"
    assert Settings().vlan.reserved == (400,)
    assert list(Settings().flavors) == ["cirros", "ubuntu"]


def test_file_then_environment(tmp_path: Path) -> None:
    text = "ssh:\n  user: lab\n  port: 2222\naccel: tcg\n"
    settings = load(tmp_path, text, CLOUDREPO_SSH_PORT="2200", CLOUDREPO_SSH_HOST_KEYS="strict")
    assert (settings.ssh.user, settings.ssh.port, settings.ssh.host_keys) == ("lab", 2200, "strict")
    assert settings.accel == "tcg"
    assert settings.get("ssh.port") == 2200


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("mac:\n  prefix: 52:54:01\n", "mac.prefix", "52:54:01"),
        ("mac:\n  prefix: 52:54:00\n", "mac.prefix", "52:54:00"),  # YAML 1.1 reads this as 190,440
        ("scheduler:\n  capacity: off\n", "scheduler.capacity", "off"),  # and this as false
        ("ssh:\n  host_keys: off\n", "ssh.host_keys", "off"),
        ("discovery:\n  wait: forever\n", "discovery.wait", math.inf),
        ("discovery:\n  wait: 0\n", "discovery.wait", 0.0),
        ("discovery.wait: 1\n", "discovery.wait", 1.0),
        ("vlan:\n  reserved: [500]\n", "vlan.reserved", (400, 500)),
        ("network:\n  deny: [10.0.0.0/8, 192.168.1.7]\n", "network.deny", ("10.0.0.0/8", "192.168.1.7/32")),
        ("network:\n  deny: []\n", "network.deny", ()),
        ("ssh:\n  key:\n", "ssh.key", ""),
        ("ssh:\n", "ssh.port", 22),
        ("# nothing\n", "ssh.port", 22),
    ],
)
def test_values_as_people_write_them(tmp_path: Path, text: str, key: str, value: object) -> None:
    assert load(tmp_path, text).get(key) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ssh:\n  hostkeys: off\n", ["line 2", "ssh.hostkeys", "ssh.host_keys"]),
        ("accell: kvm\n", ["line 1", "accell", "The nearest is accel"]),
        ("links:\n  internet:\n    vlan: 400\n", ["line 2", "no setting links.internet"]),
        ("accel: kwm\n", ["line 1", "auto, kvm, tcg", "kvm is the nearest"]),
        ("ssh:\n  port: '22'\n", ["line 2", "ssh.port", "whole number"]),
        ("ssh:\n  port: 0\n", ["from 1 to 65535"]),
        ("ssh:\n  port: true\n", ["whole number"]),
        ("scheduler:\n  ram_overcommit: .nan\n", ["number is wanted"]),
        ("links:\n  gateway: maybe\n", ["true or false"]),
        ("ssh: ubuntu\n", ["line 1", "group ssh"]),
        ("- ssh\n", ["the file must be keys"]),
        ("accel: kvm\naccel: tcg\n", ["line 2", "twice"]),
        ("accel: [kvm\n", ["cannot be read"]),
        ("internet:\n  cidr: 10.60.7.1/24\n", ["subnet"]),
        ("internet:\n  cidr: 10.60.7.0/30\n", ["/8 to /28"]),
        ("internet:\n  cidr: 192.168.64.0/20\n", ["192.168.0.0/16 holds the subnets of links"]),
        ("network:\n  deny: 10.0.0.0/8\n", ["line 2", "list of IPv4 subnets"]),
        ("network:\n  deny: [10.0.0.1/8]\n", ["list of IPv4 subnets", "host bits set"]),
        ("network:\n  deny: ['fd00::/8']\n", ["list of IPv4 subnets"]),
        ("network:\n  deny: [0.0.0.0/0]\n", ["the whole internet"]),
        ("mac:\n  prefix: 53:54:00\n", ["even"]),
        ("vnc:\n  bind: everywhere\n", ["IPv4 address"]),
        ("vlan:\n  reserved: 400\n", ["list of VLANs"]),
        ("flavors: {}\n", ["at least one flavor"]),
        ("flavors:\n  big: {cores: 2}\n", ["flavor big", "cores, ram_gb, disk_gb, image"]),
        ("flavors:\n  big: {cores: 1.5, ram_gb: 1, disk_gb: 1, image: /x}\n", ["whole number"]),
        ("ssh:\n  user: a\nssh:\n  port: 1\n", ["line 3", "group ssh is given twice"]),
        ("flavors:\n  big: {cores: 1}\n  big: {cores: 2}\n", ["line 1", "line 3", "big is there twice"]),
        ("? [ssh]\n: 1\n", ["line 1", "a key is a list or a mapping"]),
        ("monitor:\n  interval: .inf\n", ["line 2", "a number is wanted", "docs/settings.md"]),
        ('ssh:\n  user: "a\\e[2J"\n', ["line 2", r"'a\x1b[2J'", "characters that can be seen"]),
        ('"a\\e[2J": 1\n', ["line 1", r"no setting a\x1b[2J"]),
        ("flavors:\n  '$(x)': {cores: 1, ram_gb: 1, disk_gb: 1, image: /x}\n", ["flavor name"]),
    ],
)
def test_mistakes_are_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)


def test_a_mistyped_variable_is_refused_and_others_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nearest is CLOUDREPO_SSH_HOST_KEYS"):
        load(tmp_path, CLOUDREPO_SSH_HOSTKEYS="off")
    assert load(tmp_path, CLOUDREPO_STATE="/x", CLOUDREPO_LAB_ONLY="1", PATH="/bin") == Settings()


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CLOUDREPO_SSH_PORT"):
        load(tmp_path, CLOUDREPO_SSH_PORT="many")


def test_flavors_by_variable(tmp_path: Path) -> None:
    settings = load(tmp_path, CLOUDREPO_FLAVORS="{t: {cores: 2, ram_gb: 1, disk_gb: 3, image: /i}}")
    assert settings.flavors == {"t": {"cores": 2, "ram_gb": 1, "disk_gb": 3, "image": "/i"}}


def test_every_key_has_a_meaning_and_takes_its_own_default() -> None:
    for row in rows():
        assert row.text, row.key
        assert Settings.of({row.key: row.default}).get(row.key) == row.default
    assert len(settings_table().splitlines()) == len(rows()) + 2


def test_on_and_off_may_also_be_true_and_false() -> None:
    assert Settings.of({"scheduler.capacity": False}).scheduler.capacity == "off"
    assert Settings.of({"scheduler.capacity": True}).scheduler.capacity == "on"
