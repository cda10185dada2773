"""`OrchestratorAPI`, the documented façade: every call answers `(bool, payload or error message)`.

It owns no host detail. Errors become a `Message`: the documented string, which also knows its code and what
to do next. `build` wires an installation from its state file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrepo import placement
from cloudrepo.events import FILE_NAME, MIB, EventLog
from cloudrepo.interruption import Interruption
from cloudrepo.observations import Observations
from cloudrepo.progress import ProgressCallback
from cloudrepo.settings import Settings
from control import authority, late, views
from control.authority import Session
from control.calls import answers as _answers, changes as _changes
from control.calls_for_scripts import CallsForScripts
from control.context import Context
from control.host_calls import HostCalls
from control.machinery import Machinery
from control.parts import Parts
from database import Database
from models import Flavor

if TYPE_CHECKING:
    from cloudrepo.accounts import Authenticator
    from deployment_api import DeploymentAPI

Progress = ProgressCallback | None
Stop = Interruption | None


def build(
    state_path: str | os.PathLike[str] = "database.yaml",
    *,
    db: Database | None = None,
    settings: Settings | None = None,
) -> OrchestratorAPI:
    """Everything for one installation: settings, database, executor, façade. No host is contacted.

    Args:
        state_path: the state file.
        db: its database, where that is open already.
        settings: those beside it, where they were read already.

    Raises:
        CloudError: the state file or the settings cannot be used.
    """
    settings = settings or Settings.load(state_path)
    db = db or Database(state_path)
    known_hosts = settings.ssh.known_hosts or Path(state_path).resolve().parent / "known_hosts"

    def deployment() -> DeploymentAPI:
        from deployment_api import DeploymentAPI
        from remote_executor import RemoteExecutor

        return DeploymentAPI(RemoteExecutor(settings.ssh.user, settings=settings, known_hosts=known_hosts))

    return OrchestratorAPI(db, deployment, settings=settings)


class OrchestratorAPI(CallsForScripts, HostCalls, Parts):
    """The control plane: slices, VMs and links, from design to teardown.

    Args:
        db: the records.
        deployment_api: makes VMs; its executor talks to all hosts. Or what makes it, when a call first needs a host.
        settings: those beside the state file by default.

    Attributes:
        workers: the order of the round robin, from `workers_list`.
        session: who is behind the calls; a menu sets it after the login.
    """

    def __init__(
        self,
        db: Database,
        deployment_api: DeploymentAPI | Callable[[], DeploymentAPI],
        *,
        settings: Settings | None = None,
    ) -> None:
        self.db = db
        self.settings = settings or Settings.load(db.path)
        Flavor.use(self.settings.flavors)
        observations = Observations(db.path.parent / ".cloudrepo")
        self.context = Context(
            db=db,
            settings=self.settings,
            machinery=Machinery(db, self.settings, deployment_api, observations.seen),
            events=EventLog(
                db.path.parent / FILE_NAME,
                max_bytes=self.settings.events.max_mb * MIB,
                keep=self.settings.events.keep,
            ),
            observations=observations,
        )
        self.session = Session()

    @cached_property
    def _gate(self) -> Authenticator:
        from cloudrepo.accounts import Authenticator
        from cloudrepo.login_delay import LoginDelay

        return Authenticator(self.db, delay=LoginDelay(self.db.path.parent / ".cloudrepo"))

    @property
    def workers(self) -> list[str]:
        """Addresses in the order of the round robin."""
        return list(self.db.data["workers_list"])

    @property
    def round_robin_idx(self) -> int:
        """How many steps the round robin has gone."""
        return self.context.round_robin_index(self.db.data)

    def get_next_worker(self) -> str:
        """The next worker in the documented order, one step a call, without those known to be down.

        Raises:
            RefusedError: there is none.
        """
        with self.db.transaction() as data:
            index = self.context.round_robin_index(data)
            workers, drained = list(data["workers_list"]), data.get(placement.DRAINED) or ()
            choice = placement.next_worker(workers, index, self.discovery.down(), drained)
            self.context.advance_round_robin(data, choice.next_index)
            return choice.worker_ip

    # ------------------------------------------------------------------------------------ accounts

    @_changes
    def login(self, username: str, password: str) -> Any:
        """Let a person in: `username`, `role`, `must_change_password`, `quota_vms`, `used_vms`."""
        entry = self._gate.login(username, password)
        return views.account(self.db.get_user(entry.username) or {}, must_change=entry.must_change_password)

    @_changes
    def set_password(self, username: str, new_password: str) -> Any:
        """Take a new password that a user chose."""
        from cloudrepo import accounts

        accounts.set_password(self.db, username, new_password)
        return "Password changed"

    @_answers
    def list_events(self, username: str, *, count: int = 40) -> Any:
        """The last events about oneself and one's own; about everything for who may see others' slices."""
        return views.events_for(self.context, username, count)

    @_answers
    def list_users(self, username: str | None) -> Any:
        """Everybody with role, slices, and what is used of each quota; None acts as the operator, here and below."""
        return late.users.listed(self.context)

    @_changes
    def add_user(
        self,
        username: str | None,
        user: str,
        password: str,
        *,
        role: str = "student",
        quotas: Mapping[str, Any] | None = None,
    ) -> Any:
        """A new user, with a password that the first login asks to change: as in `list_users`."""
        return late.users.add(self.context, user, role, password, quotas or {})

    @_changes
    def remove_user(self, username: str | None, user: str, *, give_slices_to: str = "") -> Any:
        """Remove a user; one with slices only when they are given to another."""
        return late.users.remove(self.context, user, give_slices_to)

    @_changes
    def reset_password(self, username: str | None, user: str, new_password: str) -> Any:
        """Give a user a password that the next login asks to change."""
        return late.users.reset_password(self.context, user, new_password)

    @_changes
    def set_role(self, username: str | None, user: str, role: str) -> Any:
        """Make a user an `admin`, `instructor` or `student`: the role."""
        return late.users.set_role(self.context, user, role)

    @_changes
    def set_quota(self, username: str | None, user: str, quotas: Mapping[str, Any]) -> Any:
        """Change limits of `vms`, `cores`, `ram_gb`, `disk_gb`: the user as in `list_users`."""
        return late.users.set_quota(self.context, user, quotas)

    # ------------------------------------------------------------------------------------ design

    @_changes
    def create_slice(self, username: str, slice_name: str, topology_type: str = "custom") -> Any:
        """A new slice: `{"slice_id": int, "name": str}`."""
        return late.design.create_slice(self.context, username, slice_name, topology_type)

    @_changes
    def add_vm_to_slice(
        self,
        username: str,
        slice_id: int,
        vm_name: str,
        flavor_name: str,
        data_interfaces_count: int,
        internet_enabled: bool = False,
        *,
        image: str = "",
        first_boot: Mapping[str, Any] | None = None,
        worker: str = "",
    ) -> Any:
        """A new VM on `worker` or the next with room: its dict. `image`: an added one; `first_boot`: see its page."""
        chosen = (image, first_boot, worker)
        wish = late.design.VmWish(vm_name, flavor_name, data_interfaces_count, internet_enabled, *chosen)
        vm = late.design.add_vm(self.context, username, slice_id, wish)
        return views.vm(vm)

    @_changes
    def create_link(
        self,
        username: str,
        slice_id: int,
        vm1_id: int,
        vm1_interface: str,
        vm2_id: int,
        vm2_interface: str,
        *,
        spoofing: str | None = None,
        bridging: str | None = None,
        vlans: str | None = None,
        dhcp: bool | None = None,
        subnet: str = "",
        more_ends: Sequence[tuple[int, str]] = (),
    ) -> Any:
        """A link of two free interfaces or more: the documented six keys. The switches are those of `set_link`."""
        wishes = {"spoofing": spoofing, "bridging": bridging, "vlans": vlans, "dhcp": dhcp}
        ends = [(vm1_id, vm1_interface), (vm2_id, vm2_interface), *more_ends]
        return late.links.create(self.context, username, slice_id, ends, wishes, subnet)

    @_changes
    def set_ends(self, username: str, slice_id: int, link_id: int, ends: Sequence[tuple[int, str]]) -> Any:
        """Have a link join these interfaces: the link as in `get_slice`. Ends that stay keep their addresses."""
        return late.links.set_ends(self.context, username, slice_id, link_id, ends)

    @_changes
    def set_link(
        self,
        username: str,
        slice_id: int,
        link_id: int,
        *,
        spoofing: str | None = None,
        bridging: str | None = None,
        vlans: str | None = None,
        dhcp: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> Any:
        """Set what a link allows (`allowed`, `forbidden`) and whether it has a DHCP server: the link as in `get_slice`.

        None leaves a switch as it is. Hosts of a running slice have it when this returns. See docs/links.md.
        """
        wishes = {"spoofing": spoofing, "bridging": bridging, "vlans": vlans, "dhcp": dhcp}
        return late.links.set_link(self.context, username, slice_id, link_id, wishes, progress)

    @_changes
    def remove_vm(self, username: str, slice_id: int, vm_id: int) -> Any:
        """Take a VM, its links and its disk out of a slice; one that runs ends at once."""
        return late.design.remove_vm(self.context, username, slice_id, vm_id)

    @_changes
    def remove_link(self, username: str, slice_id: int, link_id: int) -> Any:
        """Take a link out of a slice."""
        return late.links.remove(self.context, username, slice_id, link_id)

    @_answers
    def list_slices(self, username: str) -> Any:
        """All slices of a user, as `get_slice` gives them."""
        return views.slices_of(self.context, username)

    @_answers
    def list_all_slices(self, username: str | None) -> Any:
        """Everybody's slices, as `get_slice` gives them."""
        return views.all_slices(self.context)

    @_answers
    def get_slice(self, username: str, slice_id: int) -> Any:
        """One slice with its VMs, links, pool, state and, after a failure, its reason."""
        return views.slice_of(self.context, username, slice_id)

    # ------------------------------------------------------------------------------------ images

    @_changes
    def add_image(self, username: str | None, image: str, path: str, *, format: str = "") -> Any:
        """Take a file into the library as `image`, after it was looked at: as in `list_images`.

        Who logged in names a file of `images.inbox`; at a shell, or for a program, `path` is any file.
        """
        return late.images.add(self.context, username, image, path, format, at_a_shell=not self.session.username)

    @_answers
    def list_images(self, username: str | None = None, *, look: bool = False) -> Any:
        """The added images and who uses them; with `look` the workers are asked for copies. See `control.images`."""
        return late.images.listed(self.context, username, look=look)

    @_changes
    def remove_image(self, username: str | None, image: str) -> Any:
        """Remove an added image that nothing uses, here and on workers: `name`, `removed_from`, `left`."""
        return late.images.remove(self.context, username, image)

    # ------------------------------------------------------------------------------------ lifecycle

    @_changes
    def deploy_slice(self, username: str, slice_id: int, *, progress: Progress = None, stop: Stop = None) -> Any:
        """Networks, then machines, on all hosts at once: `Slice deployed successfully`."""
        return late.lifecycle.deploy(self.context, username, slice_id, progress=progress, stop=stop)

    @_changes
    def delete_slice(self, username: str, slice_id: int, *, progress: Progress = None, stop: Stop = None) -> Any:
        """Tear a slice down by what is really there, and forget it: `Slice deleted`."""
        return late.lifecycle.delete(self.context, username, slice_id, progress=progress, stop=stop)

    @_changes
    def stop_slice(self, username: str, slice_id: int, *, progress: Progress = None, stop: Stop = None) -> Any:
        """Stop all VMs gracefully; disks stay."""
        return late.lifecycle.stop_slice(self.context, username, slice_id, progress=progress, stop=stop)

    @_changes
    def start_slice(self, username: str, slice_id: int, *, progress: Progress = None, stop: Stop = None) -> Any:
        """Start a stopped slice with its disks as they were."""
        return late.lifecycle.start(self.context, username, slice_id, progress=progress, stop=stop)

    @_changes
    def stop_vm(self, username: str, slice_id: int, vm_id: int, *, progress: ProgressCallback | None = None) -> Any:
        """Stop one VM of a running slice."""
        return late.lifecycle.stop_vm(self.context, username, slice_id, vm_id, progress=progress)

    @_changes
    def start_vm(self, username: str, slice_id: int, vm_id: int, *, progress: ProgressCallback | None = None) -> Any:
        """Start one stopped VM of a running slice."""
        return late.lifecycle.start_vm(self.context, username, slice_id, vm_id, progress=progress)

    @_changes
    def set_restart_policy(self, username: str, slice_id: int, vm_id: int, policy: str) -> Any:
        """What the monitor does when a VM dies, `never`, `on-failure` or `always`; "" = what the setting says."""
        return late.repair.set_restart_policy(self.context, username, slice_id, vm_id, policy)

    # ------------------------------------------------------------------------------------ after a crash

    @_answers
    def unfinished_operations(self, username: str | None = None) -> Any:
        """What is under way, or was when its process ended: of a user, or of all for an administrator or nobody.

        Each as a dict: `slice_id`, `name`, `owner`, `kind`, `vm_id`, `who`, `began`, `process`,
        `is_dead`, `is_handed`, `hosts`, `text`.
        """
        return [one.to_dict() for one in late.recovery.unfinished_for(self.context, username)]

    @_changes
    def resume(
        self,
        username: str,
        slice_id: int,
        *,
        progress: ProgressCallback | None = None,
        stop: Interruption | None = None,
        ended: bool = False,
        gone: Collection[str] = (),
    ) -> Any:
        """Go on with what was under way on a slice when its process ended: what became of it.

        `ended` says that a process on another host has ended, which cannot be seen from here; `gone` names hosts
        that are waited for and will never be back.
        """
        return late.recovery.resume(
            self.context, slice_id, who=username, progress=progress, stop=stop, ended=ended, gone=gone
        )

    @_changes
    def rollback(
        self,
        username: str,
        slice_id: int,
        *,
        progress: ProgressCallback | None = None,
        stop: Interruption | None = None,
        ended: bool = False,
    ) -> Any:
        """Take back what was under way on a slice when its process ended: what became of it."""
        return late.recovery.rollback(self.context, slice_id, who=username, progress=progress, stop=stop, ended=ended)

    @_changes
    def hand_over(self, username: str, slice_id: int, kind: str) -> Any:
        """Have the monitor `deploy`, `start`, `stop` or `delete` a slice; refused when none runs."""
        return late.handover.hand_over(self.context, username, slice_id, kind)

    # ------------------------------------------------------------------------------------ looking and cleaning

    @_answers
    def cluster_status(self, *, username: str | None = None) -> Any:
        """Workers with sizes, use, accelerator and problems; the network node; where the log is."""
        return views.cluster(self.context)

    @_changes
    def console_target(self, username: str, vm: int | str) -> Any:
        """Where a running VM's serial console is: `worker_ip`, `socket`, `vm_id`, `name`, `owner`."""
        return views.console(self.context, self._usable("console_target", username), username, vm)

    @_changes
    def vnc_target(self, username: str, vm: int | str) -> Any:
        """Where a running VM's screen is: `worker_ip`, `bind`, `port`, `password`, `vm_id`, `name`, `owner`."""
        return views.screen(self._usable("vnc_target", username), username, vm, self.settings.vnc.bind)

    def _usable(self, operation: str, username: str) -> list[dict[str, Any]]:
        return authority.usable_slices(self.context, operation, username)

    @_answers
    def drift(self, slice_id: int | None = None, *, username: str | None = None) -> Any:
        """Every object on every host against the records; see docs/drift.md for the keys."""
        return late.drift.look(self.context, slice_id).to_dict()

    @_answers
    def verify(self, slice_id: int | None = None, *, username: str | None = None) -> Any:
        """Prove on the wire who hears whom; see docs/verify.md for the keys."""
        return late.verify.to_dict(late.verify.verify(self.context, slice_id))

    @_answers
    def path(self, username: str, start: str, end: str) -> Any:
        """The hops from one NIC (`VM:IF`) to another, or to `gateway` or `dhcp`; see docs/verify.md for the keys."""
        return late.path.look(self.context, self._usable("path", username), username, start, end)

    @_changes
    def drift_fix(
        self, slice_id: int | None = None, *, username: str | None = None, progress: ProgressCallback | None = None
    ) -> Any:
        """Set right what is ours: `fixed`, `failed`, `left`, and `after`, a second look."""
        return late.mending.mend(self.context, slice_id, progress=progress)

    @_changes
    def state_rebuild(
        self,
        hosts: Sequence[str] = (),
        *,
        username: str | None = None,
        installation: str | None = None,
        force: bool = False,
    ) -> Any:
        """Make the records anew from the hosts. Build a new façade afterwards: this one marks with the old name."""
        return late.rebuild.rebuild(self.context, hosts, installation=installation, force=force)

    @_answers
    def cleanup_plan(self, host: str | None = None, *, username: str | None = None) -> Any:
        """All that carries our mark, by host: what `cleanup` would remove."""
        return late.cleaning.plan(self.context, host)

    @_changes
    def cleanup(
        self, host: str | None = None, *, username: str | None = None, progress: ProgressCallback | None = None
    ) -> Any:
        """Remove all that carries our mark, on one host or on all."""
        return late.cleaning.clean(self.context, host, progress=progress)
