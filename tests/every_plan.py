"""Plans of every kind that the product makes, so that the helper's grammar can be held to all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from cloudrepo import (
    accelerator,
    base_image_plans,
    base_image_removal,
    host_report,
    images,
    isolation,
    limits,
    mended_disks,
    plan as acts,
    probe,
    screen_password,
    worker_facts,
)
from cloudrepo.commands import bridging, openflow
from cloudrepo.commands.qemu_img import ImageInfo
from cloudrepo.diff import Change
from cloudrepo.doctor import host_facts
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.trial import Trial, Uplink
from cloudrepo.first_boot import Seed
from cloudrepo.naming import SHARED, Mark, flow_owner, machine_uuid, meter_number, tap_name
from cloudrepo.plan import Plan, PlanResult, Stage, Step, StepResult
from cloudrepo.resources import Closure, Disk, Flows, Machine, Meter, Process
from cloudrepo.stages import StageBuilder, tidy_stage
from cloudrepo.verification import frames
from cloudrepo.verification.path import Question
from cloudrepo.verification.shapes import ELSEWHERE
from cloudrepo.worker_facts import Question as HostQuestion
from control import disks, host_doctor, host_mending, host_proofs, path, rebuild, wire
from control.host_images import WantedImage
from fakes.bounds import HOME
from fakes.orchestrator import orchestrator
from test_stages import FACTS, wanted
from worlds import NODE, OURS, host

BASE = f"{HOME}/vm_images"
DIGEST = "0123456789abcdef" * 4


def network_and_machines() -> Iterator[Plan]:
    """Made, changed, taken away; strays, frozen machines, lost pid files; both ways of starting QEMU."""
    everything = wanted()
    machines = [one for one in everything if isinstance(one, Machine)]
    disk = Disk(
        vm_id=1001, path=f"{BASE}/vm1_img.qcow2", directory=f"{BASE}/.cloudrepo-{OURS}/vm-1001", base_dir=BASE,
        mark=Mark(OURS, "1000", 1001, "disk"), file="there",
        owner="ubuntu", mode=0o600, base={"path_on_host": f"{BASE}/base/{DIGEST[:16]}-x.img"}, record={"vm_id": 1001},
    )  # fmt: skip
    half = dataclasses.replace(disk, path="", candidate=disk.path)
    strays = (Process(pid=77, start=5, token=machine_uuid(OURS, 1001)),)
    server = Process(pid=78, start=5, token=f"--conf-file=/run/cloudrepo-{OURS}/dhcp-100/dnsmasq.conf")

    def with_strays(one: Any) -> Any:
        found = {"Machine": strays, "DhcpServer": (server,)}.get(type(one).__name__)
        return dataclasses.replace(one, strays=found) if found else one

    def stages(changes: list[Change], **options: Any) -> Plan:
        made = StageBuilder(host(NODE), FACTS, **options).build(changes)
        return Plan(installation=OURS, operation=1, fence_dir=host(NODE).disks_root, stages=made)

    yield stages([Change(wanted=one) for one in everything])
    daemons = [
        dataclasses.replace(one, spec=dataclasses.replace(one.spec, detach="daemonize")) for one in machines if one.spec
    ]
    yield stages([Change(wanted=one) for one in daemons])
    locked = [
        dataclasses.replace(one, spec=dataclasses.replace(one.spec, vnc_password=screen_password.make(), vnc_bind=bind))
        for one in machines
        for bind in ("127.0.0.1", "0.0.0.0")
        if one.spec
    ]
    yield stages([Change(wanted=one) for one in locked])
    seed = Seed((("meta-data", "instance-id: one\n"), ("user-data", "#!/bin/sh\n"), ("network-config", "version: 2\n")))
    told = [dataclasses.replace(one, spec=dataclasses.replace(one.spec, seed=seed)) for one in machines[:1] if one.spec]
    yield stages([Change(wanted=one) for one in told])
    yield from with_rates(stages)
    held = [
        dataclasses.replace(
            one,
            limits=limits.wanted(
                OURS, one.vm_id, cores=2, ram_mib=512, accelerator="tcg", controllers=limits.CONTROLLERS
            ),
        )
        for one in machines
    ]
    facts = dataclasses.replace(FACTS, controllers=limits.CONTROLLERS)
    for changes in ([Change(wanted=one) for one in held], [Change(seen=one) for one in held]):
        made = StageBuilder(host(NODE), facts).build(changes)
        yield Plan(installation=OURS, operation=1, fence_dir=host(NODE).disks_root, stages=made)
    yield stages([Change(seen=with_strays(one)) for one in [*everything, disk, half]], stop_grace_s=20.0)
    for status in ("frozen", "paused"):
        seen = [dataclasses.replace(one, pid=9, start=3, status=status, is_recorded=False) for one in machines]
        yield stages([Change(wanted=new, seen=old) for new, old in zip(machines, seen, strict=True)])
    servers = [one for one in everything if type(one).__name__ == "DhcpServer"]
    fewer: list[Any] = [dataclasses.replace(one, hosts="") for one in servers]  # type: ignore[call-arg]
    yield stages([Change(wanted=new, seen=old) for new, old in zip(servers, fewer, strict=True)])
    yield Plan(installation=OURS, stages=(tidy_stage(OURS),))
    lost = dataclasses.replace(disk, is_kept=False, mode=0o644)
    yield Plan(installation=OURS, stages=(Stage(name="m", steps=tuple(mended_disks.mend_disk(OURS, disk, lost))),))


def with_rates(stages: Callable[[list[Change]], Plan]) -> Iterator[Plan]:
    """Meters made, changed, made anew by a closure, and taken away; with short names of TAPs and with long ones."""
    for vm_id in (1001, 12345678):
        number, mark = meter_number(vm_id, "eth1"), Mark(OURS, "1000", vm_id, "eth1")
        assert number is not None
        meters = [
            Meter(number=number, flags=flags, bands=bands, mark=mark)
            for flags, bands in (openflow.limit(1000), openflow.limit(20_000))
        ]
        nic = isolation.Nic(device=tap_name(vm_id, "eth1"), mac="52:54:00:00:00:01")
        bare = isolation.link_nic(nic, (), isolation.Switches(), serves_dhcp=True)
        owner = Mark(OURS, "1000")
        flows = Flows(owner=flow_owner(owner), flows=tuple(isolation.metered(bare, {nic.device: number})), mark=owner)
        closure = Closure(bridge=host(NODE).bridge, mark=Mark(OURS, SHARED))
        yield stages([Change(wanted=meters[0]), Change(wanted=flows)])
        yield stages([Change(wanted=meters[1], seen=meters[0])])
        yield stages([Change(wanted=meters[0]), Change(wanted=flows), Change(wanted=closure)])
        yield stages([Change(seen=meters[0]), Change(seen=flows)])


def looks() -> Iterator[Plan]:
    """Every question."""
    for is_broad, is_limited in ((False, False), (True, True)):
        one = dataclasses.replace(host(NODE), is_limited=is_limited)
        yield Plan(
            installation=OURS, stages=(probe.first_question(one),), observe=probe.questions(one, is_broad=is_broad)
        )
    yield from (host_report.questions(dataclasses.replace(host(NODE), is_limited=each)) for each in (False, True))
    yield host_report.ask_last_words(host(NODE), [1001, 7])
    yield worker_facts.probe(
        HostQuestion(installation=OURS, base_dir=BASE, bridge="br-int", user="ubuntu", is_network_node=True)
    )
    yield host_facts.questions(
        HostQuestion(installation=OURS, base_dir=BASE), account="ubuntu", address="10.0.10.254", port=22
    )
    yield host_facts.clock_question(OURS)
    for kind in ("kvm", "tcg"):
        yield accelerator.proof_plan(OURS, user="ubuntu", accelerator=kind)


def disk_images() -> Iterator[Plan]:
    """A base image's way to a host, overlays and their end."""
    store = images.ImageStore(base_dir=BASE, installation=OURS)
    name, source = "cirros.img", base_image_plans.Source(path=f"{BASE}/cirros.img", size=5, mtime_ns=6)
    seen = base_image_plans.Look(
        trusted=None,
        recorded=None,
        sources=(source,),
        refused=(),
        user="ubuntu",
        folder_exists=True,
        cut_size=0,
        free=None,
    )
    yield base_image_plans.look(store, HOME, name, DIGEST, (source.path,))
    yield base_image_plans.look(store, HOME, name, "", (source.path,))
    yield base_image_plans.prepare(store, seen)
    base_image_plans.prepare(
        store, dataclasses.replace(seen, folder_exists=False)
    )  # `harden` makes it; never asked for
    drafts = (
        base_image_plans.draft_path(store, DIGEST), base_image_plans.draft_path(store, DIGEST, source.path),
        base_image_plans.draft_path(store, "", source.path),
    )  # fmt: skip
    for draft in drafts:
        info = ImageInfo(format="qcow2", virtual_size=1 << 30)
        found = base_image_plans.Found(path=draft, sha256=DIGEST, size=5, info=info)
        image = base_image_plans.image_of(store, name, found, "manager")
        yield base_image_plans.copy(store, source, draft, "ubuntu")
        for told in ("", "qcow2", "raw"):
            yield base_image_plans.inspect(store, draft, 5, "ubuntu", told)
        yield base_image_plans.check(store, found, "ubuntu")
        yield base_image_plans.install(store, found, image)
        yield base_image_plans.install(store, found, image, source)
        yield base_image_plans.drop(store, draft)
    cut = base_image_plans.cut_path(store, DIGEST)
    yield Plan(installation=OURS, observe=(Step(name="c", label="c", act=acts.Checksum(path=cut, length=4)),))
    base = images.BaseImage(
        path_on_host=f"{BASE}/base/{DIGEST[:16]}-x.img", sha256=DIGEST, virtual_size=1, format="raw"
    )
    for key in (1001, "ab12"):
        spec = images.OverlaySpec(
            key=key, mark=Mark(OURS, "1000", 1001), base=base, size_bytes=5, user="ubuntu", uuid=""
        )
        path = f"{BASE}/1000_vm1_img.qcow2"
        yield images.overlay_plan(store, spec, path, operation=1)
        yield images._finishing(store, spec, path, 1)
        for text in (images.mark_text(spec, disk=path), images.mark_text(spec, candidate=path)):
            mark = images.parse_mark_file(text, store.directory(key))
            assert mark is not None
            yield images._removal(store, [mark], 1)
    yield Plan(installation=OURS, observe=images.observe_disks(store))


class Recorder:
    """An executor that keeps plans and answers nothing but what is needed to go on."""

    remote_user = "ubuntu"

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def run_plan(self, ip: str, plan: Plan, **options: Any) -> PlanResult:
        self.plans.append(plan)
        answers = {step.name: StepResult(name=step.name, label="", status=0, out="{}") for step in plan.observe}
        return PlanResult(host=ip, steps={}, observed=answers, failed=None, aborted="")

    def images_home(self, ip: str) -> str:
        return HOME

    home = images_home

    def gather(self, work: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        return {ip: call() for ip, call in work.items()}


def use_cases(tmp_path: Path) -> Iterator[Plan]:
    """The acts that use cases make themselves: verify, disks, rebuild, the executor's own checksum."""
    from cloudrepo.errors import CloudError
    from remote_executor import RemoteExecutor

    image = tmp_path / "cirros.img"
    image.write_bytes(b"x")
    of_cirros = WantedImage(what="x", path=str(image), sha256=DIGEST, size=1)
    recorder = Recorder()
    api = orchestrator(tmp_path)
    api.site.installation = OURS
    fake: Any = api.site.executor
    disks._missing(api.context, NODE, [{"vm_id": 1001}])
    yield from (plan for _, plan in fake.plans)
    api.site.executor = executor = cast(Any, recorder)
    store = images.ImageStore(base_dir=BASE, installation=OURS)
    in_place = base_image_plans.base_path(store, DIGEST, "cirros.img")
    calls: list[Callable[[], Any]] = [
        lambda: wire.survey(api.site, [NODE]),
        lambda: path._ask_host(api.site, NODE, [Question(host=NODE, port="tap_1001_eth1", frame=bytes(60))]),
        lambda: base_image_removal.copies(executor, NODE, store),
        lambda: base_image_removal._take_away(executor, NODE, store, DIGEST, in_place, [store.root]),
        lambda: rebuild._with_disks(api.context, [host(NODE)], ["feedface"]),
        lambda: images.delete_overlay(
            executor, NODE, store, f"{BASE}/a_img.qcow2",
            operation=lambda above=0: 1,
        ),
    ]  # fmt: skip
    yield on_the_wire(api.site)
    yield on_the_wire(api.site, only=(7,))
    yield between_hosts(api)
    calls.append(lambda: host_proofs.prove(api.context, NODE, sick_host(), [of_cirros]))
    for words, stdin in (
        (bridging.make_bridge("br-int", "system"), ""),
        (bridging.make_bridge("br-int", "netdev"), ""),
        (bridging.join("br-int", "eth1"), ""),
        (("ip", "-batch", "-"), bridging.up("eth1") + bridging.mtu("eth1", 1500)),
    ):
        calls.append(host_mending._run(api.context, NODE, words, stdin))
    yield base_image_removal._look(store, in_place)
    calls.append(lambda: put_back(executor, store, in_place))
    for call in calls:
        try:
            call()
        except (CloudError, KeyError, ValueError, LookupError):
            continue  # what becomes of no answer is not the subject
    made = RemoteExecutor(config_file=tmp_path / "c")
    made.run_plan = recorder.run_plan  # type: ignore[method-assign, assignment]
    try:
        made._checksum(NODE, f"{BASE}/.cloudrepo-{OURS}/upload/{DIGEST[:16]}.part", OURS)
    except KeyError:
        pass
    yield from recorder.plans


def on_the_wire(site: Any, only: Collection[int] | None = None) -> Plan:
    """A run of `verify`, with a frame of each kind that is sent by the host itself; or some of it once more."""
    sender = SimpleNamespace(host=NODE, device="tap_1001_eth1", namespace="")
    mark, mac = b"12345678abcd", "52:54:00:00:00:01"
    sent = {
        "switch": frames.arp_request(mac, mac, "10.1.0.1", "10.1.0.2", mark),
        "device": frames.ethernet(frames.BROADCAST, mac, frames.EXPERIMENTAL, mark),
        "stack": frames.udp_packet("10.60.7.5", ELSEWHERE, (1, 2), mark, hops=1),
    }
    run: wire.Run = object.__new__(wire.Run)
    run.site, run.token, run._only, run.settle_s = site, b"12345678", only, 0.3
    run.probes = cast(Any, [
        SimpleNamespace(
            sender=sender, frame=frame, shape=SimpleNamespace(way=way, target=ELSEWHERE), transaction=b"1234", number=7
        )
        for way, frame in sent.items()
    ])  # fmt: skip
    space = SimpleNamespace(ear=(NODE, "dhcp_v100"), namespace="ns-dhcp-vlan100")
    run.stage = cast(Any, SimpleNamespace(places={1: space}))
    run.grounds = cast(Any, {NODE: SimpleNamespace(ports={"tap_1001_eth1": SimpleNamespace(number=3)})})
    return run.plan(NODE)


def between_hosts(api: Any) -> Plan:
    """The doctor's frames: each kind, in a VLAN of ours."""
    uplinks = tuple(Uplink(host=ip, device="eth1", mac="02:00:0a:00:01:01", mtu=1500) for ip in (NODE, "10.0.10.9"))
    sent = Trial(run=b"12345678", uplinks=uplinks, vlans=(100, 400), quiet=frozenset({400}), asked=frozenset({400}))
    return host_doctor.Frames(api.context, sent).plan(NODE)


def sick_host() -> HostFacts:
    """A host that has KVM, as far as it can be seen, so that both accelerators are tried."""
    question = HostQuestion(installation=OURS, base_dir=BASE)
    facts = worker_facts.read(question, {})
    return HostFacts(
        ip=NODE, question=question, worker=dataclasses.replace(facts, missing=(), user_groups=("kvm",), has_kvm=True)
    )


def put_back(executor: Any, store: images.ImageStore, path: str) -> None:
    """A base image that is found in use after it was taken away."""
    genuine = base_image_removal._why_used
    base_image_removal._why_used = lambda *given: "a disk is on it"
    try:
        base_image_removal._take_away(executor, NODE, store, DIGEST, path, [])
    finally:
        base_image_removal._why_used = genuine
