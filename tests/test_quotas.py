"""Quotas of VMs, cores, memory and disk: counted, told, changed, and held when thirty processes ask at once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import quotas
from cloudrepo.errors import RefusedError
from cloudrepo.settings import Settings
from database import Database
from fakes.orchestrator import orchestrator
from models import Flavor
from orchestrator_api import OrchestratorAPI
from test_state_crowd import opened, prepare

PROCESSES = 30


@pytest.fixture
def api(tmp_path: Path) -> OrchestratorAPI:
    api = orchestrator(tmp_path)
    assert api.create_slice("student", "one")[0]
    return api


def add(api: OrchestratorAPI, name: str, who: str = "student") -> tuple[bool, Any]:
    return api.add_vm_to_slice(who, 1000, name, "cirros", 1)


@pytest.mark.parametrize(
    ("kind", "limit", "asked"), [("vms", 2, 1), ("cores", 2, 1), ("ram_gb", 1, 0.5), ("disk_gb", 2, 1)]
)
def test_each_kind_is_a_limit_and_the_answer_says_which(
    api: OrchestratorAPI, kind: str, limit: float, asked: float
) -> None:
    assert api.set_quota(None, "student", {kind: limit})[0]
    assert add(api, "vm1")[0] and add(api, "vm2")[0]
    done, message = add(api, "vm3")
    assert (done, message) == (False, "Quota exceeded")
    exceeded = {"what": kind, "used": limit, "limit": limit, "asked": asked}
    assert message.details == {"user": "student", "exceeded": [exceeded]}
    assert message.hint == f"{kind}: {limit} used of {limit}, {asked:g} asked for"
    assert api.remove_vm("student", 1000, api.get_slice("student", 1000)[1]["vms"][0]["vm_id"])[0]
    assert add(api, "vm3")[0]


def test_several_limits_are_told_at_once(api: OrchestratorAPI) -> None:
    api.set_quota(None, "student", {"vms": 0, "cores": 0, "disk_gb": "unlimited"})
    done, message = add(api, "vm1")
    assert not done and [one["what"] for one in message.details["exceeded"]] == ["vms", "cores"]


def test_two_installations_in_one_process_offer_their_own_flavors(tmp_path: Path) -> None:
    made = {}
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        flavor = f"{{cores: 1, ram_gb: 1, disk_gb: 1, image: /i/{name}}}"
        (tmp_path / name / "settings.yaml").write_text(f"flavors: {{{name}: {flavor}}}\n")
        made[name] = orchestrator(tmp_path / name)
    for name, other in (("small", "large"), ("large", "small")):
        assert made[name].create_slice("student", "one")[0]
        assert made[name].add_vm_to_slice("student", 1000, "vm1", name, 1)[0]
        done, message = made[name].add_vm_to_slice("student", 1000, "vm2", other, 1)
        assert (done, message, message.details) == (False, "Invalid flavor", {"flavors": [name]})


def test_what_a_record_does_not_say_the_settings_do(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("quota: {cores: 1, ram_gb: unlimited, vms: 4}\n")
    api = orchestrator(tmp_path)
    assert api.create_slice("student", "one")[0] and add(api, "vm1")[0]
    assert add(api, "vm2")[1].details["exceeded"] == [{"what": "cores", "used": 1, "limit": 1, "asked": 1}]
    assert api.set_quota(None, "student", {"cores": 2})[0] and add(api, "vm2")[0]
    api.set_quota(None, "student", {"cores": "unlimited"})
    assert add(api, "vm3")[0]
    api.set_quota(None, "student", {"cores": "default"})
    assert not add(api, "vm4")[0]
    assert "quota_cores" not in api.db.data["users"]["student"]
    assert api.set_quota(None, "student", {"vms": "default"})[1]["quota"]["vms"] == {"used": 3, "limit": 4}


def test_a_vm_that_an_administrator_adds_counts_for_its_owner(api: OrchestratorAPI) -> None:
    api.set_quota(None, "student", {"vms": 1})
    assert add(api, "vm1", "admin")[1]["owner"] == "student"
    assert add(api, "vm2", "admin") == (False, "Quota exceeded")
    users = {one["username"]: one["quota"]["vms"]["used"] for one in api.list_users(None)[1]}
    assert users == {"admin": 0, "student": 1}


@pytest.mark.parametrize("word", ["many", "", "-1", "nan", "inf", "1e300", "0x10", None, True, [1], "1.5 GB"])
@pytest.mark.parametrize("kind", quotas.KINDS)
def test_limits_that_are_none(api: OrchestratorAPI, kind: str, word: Any) -> None:
    before = dict(api.db.data["users"]["student"])
    done, message = api.set_quota(None, "student", {kind: word})
    assert not done and f"a quota of {kind} cannot be" in message and "`default`" in message
    assert api.db.data["users"]["student"] == before


def test_limits_are_whole_where_things_are_whole(api: OrchestratorAPI) -> None:
    assert not api.set_quota(None, "student", {"cores": "1.5"})[0]
    assert not api.set_quota(None, "student", {"vms": "unlimited"})[0]  # documented: a number
    assert not api.set_quota(None, "student", {"gpus": 1})[0]
    user = api.set_quota(None, "student", {"ram_gb": "1.5", "vms": "7"})[1]
    assert (user["quota"]["ram_gb"]["limit"], user["quota"]["vms"]["limit"]) == (1.5, 7)


def test_sums_of_decimals_reach_their_limit() -> None:
    """Three times 0.1 is 0.3, whatever floating point makes of it."""
    vms = [{"cores": 1, "ram_gb": 0.1, "disk_gb": 0.7} for _ in range(2)]
    data = {
        "users": {"ann": {"username": "ann", "quota_vms": 99, "quota_ram_gb": 0.3, "quota_disk_gb": 2.1}},
        "slices": {"1": {"owner": "ann", "vms": vms}},
    }
    quotas.check(data, "ann", quotas.Amount(1, 1, 0.1, 0.7), Settings())
    with pytest.raises(RefusedError) as caught:
        quotas.check(data, "ann", quotas.Amount(1, 1, 0.11, 0.71), Settings())
    assert [one["what"] for one in caught.value.details["exceeded"]] == ["ram_gb", "disk_gb"]


def test_a_quota_of_cores_holds_when_thirty_processes_ask_at_once(tmp_path: Path) -> None:
    path, limit = tmp_path / "database.yaml", 17
    prepare(path)
    db = Database(path)
    with db.transaction() as data:
        data["users"]["user0"] |= {"quota_vms": 1000, "quota_cores": limit}
    db.close()
    made = opened(path)
    slices = [made.create_slice("user0", f"slice {number}")[1]["slice_id"] for number in range(3)]
    made.db.close()
    go, release = os.pipe()
    children = [_ask(path, slices[number % 3], number, go, release) for number in range(PROCESSES)]
    os.close(go)
    os.close(release)  # all begin at once
    statuses = Counter(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
    assert statuses == {0: limit, 3: PROCESSES - limit}
    data = Database(path).data
    assert sum(vm["cores"] for record in data["slices"].values() for vm in record["vms"]) == limit
    assert Flavor.FLAVORS["cirros"]["cores"] == 1


def _ask(path: Path, slice_id: int, number: int, go: int, release: int) -> int:
    """A process that asks for one VM: status 0 when it got it, 3 when the quota was exceeded."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        api = opened(path)
        os.close(release)
        os.read(go, 1)  # until the last writing end is closed
        done, answer = api.add_vm_to_slice("user0", slice_id, f"vm{number}", "cirros", 0)
        status = 0 if done else 3 if answer == "Quota exceeded" else 4
        api.db.close()
    finally:
        os._exit(status)
