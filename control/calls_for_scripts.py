"""The calls of the façade that one-shot commands need beside the documented ones: plans, and programs in guests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo.interruption import Interruption
from cloudrepo.progress import ProgressCallback
from control import authority, late
from control.authority import Session
from control.calls import answers as _answers, changes as _changes
from control.context import Context


class CallsForScripts:
    """A part of `OrchestratorAPI`; it answers as all of that does."""

    context: Context
    session: Session

    @_answers
    def plan(
        self,
        username: str,
        slice_id: int,
        kind: str,
        *,
        vm_id: int | None = None,
        link_id: int | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> Any:
        """What `deploy`, `start`, `stop`, `delete` of a slice, or `start_vm`, `stop_vm`, `remove_vm` would do, by host.

        Or `remove_link` and, with `switches`, `set_link`. See `control.planning.plan` for the keys; docs/commands.md
        says what they mean.
        """
        return late.planning.plan(self.context, username, slice_id, kind, vm_id, link_id, switches)

    @_answers
    def allocate(self, username: str, kind: str, wish: Mapping[str, Any], *, slice_id: int | None = None) -> Any:
        """What `create_slice`, `add_vm` or `add_link` would be given: `allocations`, and the `quota` afterwards."""
        return late.planning.allocate(self.context, username, kind, slice_id, wish)

    @_answers
    def rehearse(self, username: str | None, call: str, wish: Mapping[str, Any]) -> Any:
        """What another call would change with these arguments, without making it; see `control.rehearsal.rehearse`.

        Who may make that call may have it rehearsed.
        """
        at_a_shell = not self.session.username
        return late.rehearsal.rehearse(self.context, username, call, wish, at_a_shell=at_a_shell)

    @_changes
    def apply_plan(
        self,
        username: str,
        slice_id: int,
        plan: Mapping[str, Any],
        *,
        progress: ProgressCallback | None = None,
        stop: Interruption | None = None,
    ) -> Any:
        """Do what a plan of a slice says, if record and hosts are as they were; else the refusal says what moved."""
        return late.planning.apply(self.context, username, slice_id, plan, progress, stop)

    @_changes
    def exec_in_vm(
        self,
        username: str,
        vm: int | str,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        by: str = "",
        login: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a program in a running VM by its guest agent, or by SSH.

        `status`, `out`, `err` (bytes), `by`, and which VM it was. See `control.guests.run` for `by` and `login`.
        """
        slices = authority.usable_slices(self.context, "exec_in_vm", username)
        wish: dict[str, Any] = {"stdin": stdin, "timeout_s": timeout_s, "by": by, "login": login}
        return late.guests.run(self.context, slices, username, vm, command, **wish)
