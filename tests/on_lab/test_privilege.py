"""With the SSH key but only the helper: what a thief of the key tries on a real host, and what it gets.

The thief has a shell as the login account and may send the helper any message. Another installation is on that host.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterator

import pytest

from cloudrepo.host.hardening import COMPILED, FOLDER
from cloudrepo.host.message import HELPER, PYTHON, encode
from cloudrepo.host.programs import helper_version
from cloudrepo.naming import machine_uuid, run_root
from cloudrepo.plan import (
    MakeDir,
    ObserveMachines,
    Plan,
    Remove,
    Stage,
    Step,
    WriteFile,
)
from on_lab.cluster import HOSTS, Cluster
from on_lab.escapes import escapes
from on_lab.hardened import IMAGES
from on_lab.thief import (
    FOREIGN,
    HOST,
    MAKE_THEM,
    OWNED,
    PICTURE,
    SECRET,
    TAKE_THEM,
    Thief,
    mark_of,
    words,
)

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def thief(module_clusters: Callable[..., Cluster]) -> Iterator[Thief]:
    cluster = module_clusters(host={"privilege": "helper"})
    cluster.host(HOST, "sh", "-c", MAKE_THEM)
    installation = cluster.api.site.installation
    one = Thief(cluster, installation, run_root(installation), f"{IMAGES}/.cloudrepo-{installation}")
    made = one.ask(
        MakeDir(path=one.store, mode=0o755),
        MakeDir(path=f"{one.store}/upload", mode=0o700, user="ubuntu"),
        MakeDir(path=f"{IMAGES}/base", mode=0o755),
        MakeDir(path=f"{one.store}/vm-7"),
        MakeDir(path=f"{one.run}/vm-7", mode=0o700, user="ubuntu"),
        MakeDir(path=f"{one.run}/dhcp-777", mode=0o755),
        WriteFile(path=f"{one.run}/vm-7/mark", text=f"{mark_of(one)}\n{machine_uuid(installation, 7)}\n"),
    )
    assert '"failed": null' in made, made  # the way that all the others take is open
    yield one
    one.ask(Remove(path=f"{one.run}/vm-7", within=one.run, tree=True))
    cluster.host(HOST, "sh", "-c", f"{TAKE_THEM} rm -rf {one.store} {one.run}")


LINKS = """
ln -sfn /etc/shadow {store}/upload/0000000000000000.part
ln -sfn /run/openvswitch/db.sock {run}/vm-7/qmp.sock
ln -sfn /run/openvswitch/db.sock {run}/vm-7/serial.sock
rm -f {run}/vm-7/mark; ln -s /etc/shadow {run}/vm-7/mark
ln -sfn {secret} {run}/vm-7/qemu.log
ln -sfn {secret} {run}/vm-7/pid
"""


@pytest.mark.cost(seconds=45)
def test_every_listed_escape_fails_and_changes_nothing(thief: Thief) -> None:
    thief.shell(LINKS.format(run=thief.run, store=thief.store, secret=SECRET))
    assert "shadow" in thief.shell(f"readlink {thief.run}/vm-7/mark")  # else nothing is tried
    before = thief.cluster.host(HOST, "sh", "-c", PICTURE)
    tried = escapes(thief)
    assert len(tried) >= 70
    worked = {}
    for name, acts in tried.items():
        said = thief.ask(*acts)
        is_refused = '"event": "refused"' in said or ('"failed": "' in said and '"event": "done"' in said)
        if not is_refused or "root:" in said or "s3cret" in said:
            worked[name] = said
    assert worked == {}
    assert thief.cluster.host(HOST, "sh", "-c", PICTURE) == before


@pytest.mark.cost(seconds=8)
def test_what_is_looked_at_as_root_follows_no_link(thief: Thief) -> None:
    """The account owns the directory of its machine, and may put anything there."""
    said = thief.ask(
        ObserveMachines(root=thief.run, socket="qmp.sock"),
        words("ip", "-V"),
        words("qemu-system-x86_64", "--version"),
    )
    assert '"failed": null' in said and '\\"mark\\":null' in said, said
    assert "root:" not in said
    socket = {"socket": f"{thief.run}/vm-7/serial.sock"}
    assert thief.send(encode("relay", socket, has_helper=True))[0]["event"] == "refused"
    for path in (
        "/run/openvswitch/db.sock",
        f"{thief.run}/vm-7/../vm-7/serial.sock",
        f"{run_root(FOREIGN)}/vm-9/agent.sock",
    ):
        assert thief.send(encode("relay", {"socket": path}, has_helper=True))[0]["event"] == "refused"


@pytest.mark.cost(seconds=10)
def test_sudo_runs_the_helper_alone_and_the_helper_runs_no_program(thief: Thief) -> None:
    listed = thief.shell("sudo -n -l")
    assert listed.index("NOPASSWD: ALL") < listed.index("!ALL") < listed.rindex(HELPER)  # the last that fits counts
    message = base64.b64encode(encode("runner", {**Plan(installation=thief.installation).to_json(), "environment": {}}))
    for line in (
        "sudo -n true",
        "sudo -n -u admin true",
        f"sudo -n {HELPER} --help",
        f"sudo -n {shlex.join(PYTHON[:3])} -c pass",
        f"sudo -n PYTHONPATH=/tmp {HELPER} < /dev/null",
        f"sudo -n -E {HELPER} < /dev/null; false",
        f"echo x >> {HELPER}",
        f"mv {HELPER} {HELPER}.old",
        f"echo x >> {FOLDER}/helper_{helper_version()}.py",
        f"mkdir {FOLDER}/json",
        f"rm -r {COMPILED}",
        f"touch {COMPILED}/json.cpython-311.pyc",
        "echo x > /etc/cloudrepo/helper.d/x.json",
        f"cd {IMAGES} && mkdir x",
    ):
        assert not thief.shell(line).endswith("[0]"), line
    # the runner of the documented way, in the place of a plan
    said = thief.shell(f"echo {message.decode()} | base64 -d | sudo -n {HELPER}")
    assert "takes plans, not programs" in said
    # variables, whether sudo lets them through or a plan brings them
    spy = "/tmp/spy"
    module = f"open('{OWNED}', 'w')"
    thief.shell(f'mkdir -p {spy}; echo "{module}" > {spy}/json.py; cp {spy}/json.py {spy}/sitecustomize.py')
    thief.shell(
        f"cd {spy} && PYTHONPATH={spy} PYTHONSTARTUP={spy}/json.py PYTHONHOME={spy} sudo -n {HELPER} < /dev/null"
    )
    assert "a plan brings no variables" in thief.ask(words("nproc"), environment={"PATH": spy})
    assert "is not" in thief.ask(words("nproc"), installation=FOREIGN) or "not prepared" in thief.ask(
        words("nproc"), installation=FOREIGN
    )
    assert "fence directory" in thief.ask(words("nproc"), operation=1, fence_dir="/root")
    thief.shell(f"rm -r {spy}")
    assert thief.cluster.lab.host(HOST, ["test", "-e", OWNED]).returncode != 0


@pytest.mark.cost(seconds=6)
def test_another_version_and_an_unprepared_host_say_what_to_do(thief: Thief) -> None:
    """The orchestrator was updated and the host was not; the host was never prepared for this installation."""
    host = thief.cluster.host
    assert helper_version() in host(HOST, "cat", HELPER)
    old = [f"{FOLDER}/helper_{'0' * 16}.py", f"{COMPILED}/helper_{'0' * 16}.cpython-311.pyc"]
    host(HOST, "cp", f"{FOLDER}/helper_{helper_version()}.py", old[0])
    host(HOST, "touch", old[1])
    host(HOST, "sh", "-c", f"sed -i s/{helper_version()}/{'0' * 16}/ {HELPER}")
    try:
        plan = Plan(installation=thief.installation, observe=(Step(name="n", label="n", act=words("nproc")),))
        thief.cluster.api.executor.close()
        with pytest.raises(Exception, match="orchestrator's is") as caught:
            thief.cluster.api.executor.run_plan(HOST, plan)
        assert f"`./cloud worker harden {HOST}` again" in caught.value.remedy  # type: ignore[attr-defined]
        done, answer = thief.cluster.api.harden_worker(HOST, admin="admin")
        assert (done, answer["changed"]) == (True, [f"wrote {HELPER}", *(f"removed {path}" for path in old)])
    finally:
        host(HOST, "sh", "-c", f"sed -i s/{'0' * 16}/{helper_version()}/ {HELPER}")
    assert thief.cluster.api.executor.run_plan(HOST, plan).observed["n"].status == 0
    with pytest.raises(Exception, match="not prepared") as caught:
        thief.cluster.api.executor.run_plan(HOST, Plan(installation="0badc0de"))
    assert "worker harden" in caught.value.remedy  # type: ignore[attr-defined]


@pytest.mark.cost(seconds=8)
def test_hardening_says_what_it_changed_and_can_be_repeated_and_undone(thief: Thief) -> None:
    api, host = thief.cluster.api, thief.cluster.host
    other = HOSTS[1]
    everything = (
        "sh",
        "-c",
        "cd /etc; find cloudrepo sudoers.d /usr/local/lib -name '*.pyc' -o -type f -exec sha256sum {} +",
    )
    before = host(other, *everything)
    assert api.harden_worker(other, admin="admin") == (True, {"changed": [], "warnings": []})
    assert host(other, *everything) == before
    compiled = host(other, "sh", "-c", f"ls {COMPILED}/*.pyc").strip()
    host(other, "truncate", "-s", "5000", compiled)  # a disk may do that
    assert api.harden_worker(other, admin="admin") == (True, {"changed": [f"compiled {compiled}"], "warnings": []})
    done, message = api.harden_worker(other)  # the account itself is root no more
    assert not done and f"`./cloud worker harden {other} --admin USER`" in message.hint
    done, answer = api.harden_worker(other, admin="admin", undo=True)
    assert done and f"removed /etc/cloudrepo/helper.d/{thief.installation}.json" in answer["changed"]
    assert "cloudrepo" not in host(other, "sh", "-c", "ls /etc /etc/sudoers.d /usr/local/lib")
    assert thief.cluster.api.executor.execute_direct(other, "sudo -n true").returncode == 0  # as it was before
    done, answer = api.harden_worker(other, admin="admin")
    assert done and f"made /etc/cloudrepo/helper.d/{thief.installation}.json" in answer["changed"]
    assert host(other, *everything) == before


@pytest.mark.cost(seconds=2)
def test_the_thief_still_has_what_the_orchestrator_has(thief: Thief) -> None:
    """So that the refusals above are not those of a helper that refuses everything."""
    stage = Stage(name="s", steps=(Step(name="n", label="n", act=words("nproc")),))
    assert thief.cluster.api.executor.run_plan(HOST, Plan(installation=thief.installation, stages=(stage,))).ok
