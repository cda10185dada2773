"""The guest image does what the product's tests expect of a guest."""

from __future__ import annotations

import pytest

from lab_infra.guests import DhcpServer, Guest
from lab_infra.waiting import wait_for

pytestmark = pytest.mark.lab
_BOOT = 120  # a limit, not a measure: other tests may use the same two cores


@pytest.mark.cost(seconds=10)
def test_every_card_gets_an_address_across_hosts_and_answers(guest: Guest, dhcp: DhcpServer) -> None:
    wait_for(lambda: all(dhcp.address_of(mac) for mac in guest.macs), _BOOT, "leases")
    wait_for(lambda: dhcp.pings(dhcp.address_of(guest.macs[0])), 30, "answers a ping")
    interfaces = {card["name"]: card for card in guest.agent("guest-network-get-interfaces")}
    assert [interfaces[f"eth{card}"]["hardware-address"] for card in (0, 1)] == guest.macs


@pytest.mark.cost(seconds=12)
def test_a_card_whose_cable_comes_later_asks_again(guest: Guest, dhcp: DhcpServer) -> None:
    wait_for(lambda: dhcp.address_of(guest.macs[1]), _BOOT, "a first lease")
    address = dhcp.address_of(guest.macs[1])
    wait_for(lambda: dhcp.pings(address), 30, "answers before")
    guest.qmp("set_link", name="nic1", up=False)
    wait_for(lambda: "192.168" not in str(_addresses(guest, "eth1")), 30, "the address is dropped")
    guest.qmp("set_link", name="nic1", up=True)
    wait_for(lambda: address in str(_addresses(guest, "eth1")), 30, "the address is back")


@pytest.mark.cost(seconds=8)
def test_the_power_button_is_obeyed(guest: Guest) -> None:
    wait_for(lambda: guest.agent("guest-ping") == {}, _BOOT, "the guest is up")
    guest.qmp("system_powerdown")
    wait_for(lambda: not guest.running(), 30, "QEMU ended by itself")


@pytest.mark.cost(seconds=12)
def test_the_power_button_is_ignored_by_the_deaf_image(deaf_guest: Guest) -> None:
    wait_for(lambda: deaf_guest.agent("guest-ping") == {}, _BOOT, "the guest is up")
    deaf_guest.qmp("system_powerdown")
    assert deaf_guest.shell("sleep 3")[0] == 0
    assert deaf_guest.running()


@pytest.mark.cost(seconds=8)
def test_the_serial_console_is_a_root_shell(guest: Guest) -> None:
    wait_for(lambda: guest.agent("guest-ping") == {}, _BOOT, "the guest is up")
    assert "uid=0" in guest.console("id", until="uid=0")


@pytest.mark.cost(seconds=15)
def test_fetch_fails_when_there_is_nothing_to_fetch(guest: Guest, dhcp: DhcpServer) -> None:
    wait_for(lambda: dhcp.address_of(guest.macs[0]), _BOOT, "a lease")
    assert guest.shell("fetch http://192.168.70.1/ 3")[0] != 0
    page = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n' | nc -l -p 80 >/dev/null & sleep 1; fetch http://127.0.0.1/"
    assert guest.shell(f"({page}) | grep -qx hello")[0] == 0


def _addresses(guest: Guest, card: str) -> list[str]:
    found = {entry["name"]: entry for entry in guest.agent("guest-network-get-interfaces")}
    return [address["ip-address"] for address in found[card].get("ip-addresses", [])]


@pytest.mark.cost(seconds=15)
def test_three_megabytes_go_to_a_listener_without_an_input(guest: Guest, deaf_guest: Guest, dhcp: DhcpServer) -> None:
    wait_for(lambda: all(dhcp.address_of(each.macs[0]) for each in (guest, deaf_guest)), _BOOT, "leases")
    guest.agent("guest-exec", path="/bin/sh", arg=["-c", "nc -l -p 5000 > /tmp/got"])
    address = dhcp.address_of(guest.macs[0])
    send = f"head -c 3000000 /dev/urandom > /tmp/data && sleep 1 && nc {address} 5000 < /tmp/data"
    assert deaf_guest.shell(send)[0] == 0
    wait_for(lambda: guest.shell("test $(stat -c %s /tmp/got) = 3000000")[0] == 0, 30, "all of it is there")
