"""`./cloud topology plan`, `apply`, `export`: a file and the slice that it is about."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from cli import documents
from cli.documents import NotDone
from cli.plans import plan_in, save
from cli.screen import BAD, FAINT, GOOD, STRONG
from cli.slices import NEW_OWNER
from cli.text import count
from cli.topology_files import source_of, text_of
from cli.work import SliceWork, Work, questions
from cloudrepo.topology.difference import REMOVE_LINK, REMOVE_VM, Action, Difference
from cloudrepo.topology.model import Topology
from cloudrepo.topology.reading import Known, read
from control import topology as calls, topology_plans
from control.expected import Expected
from control.topology_plans import Basis

DONE, FAILED, DIFFERENCES = 0, 1, 2  # exit statuses
NAME = "topology"


class FileWork(Work):
    """A file at work: the user, the slice it is about, and what is between the two.

    Args:
        context: typer's.
        file: its name, or `-`.
        text: what it holds.
        variables: values of its variables.
        slice: which slice, by id or name; "" = that of its name.
        user: who acts; "" = the slice's owner, or the administrator for a new one.
        replace: machines that may be made anew.
        as_json: whether a document is wanted.

    Raises:
        CloudError: the file has mistakes, or the façade refuses.
        NotDone: there is no such slice, or several.
    """

    def __init__(
        self,
        context: typer.Context,
        file: str,
        text: str,
        *,
        variables: Mapping[str, Any],
        slice: str,
        user: str,
        replace: Sequence[str],
        as_json: bool,
    ) -> None:
        super().__init__(context, NAME, as_json=as_json)
        self.topology = read(text, source_of(file), known=self._known(user), given=variables)
        record = self._slice(slice, user)
        self.acting = user or (str(record["owner"]) if record is not None else NEW_OWNER)
        slice_id = int(record["slice_id"]) if record is not None else None
        self.plan = calls.plan(self.api, self.acting, self.topology, slice_id=slice_id, replace=replace)
        path = "" if file == "-" else str(Path(file).absolute())
        self.basis = Basis(user=self.acting, file=path, text=text, variables=variables, replace=replace)
        self.expected: Expected | None = None

    def kept(self) -> dict[str, Any]:
        """The plan, to be kept."""
        return self._kept(self._record())

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Do only what a kept plan says, to the slice that it was made for, as long as nobody else changes that.

        Raises:
            RefusedError: something is another thing already.
        """
        record, db = self._record(), self.installation.db
        moved = topology_plans.what_moved(saved, self._kept(record))
        if moved:
            raise topology_plans.stale(moved)
        self.expected = Expected(db, self.acting, self.topology.name, record, topology_plans.REMEDY)

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """One more call, which is refused where it is about a kept plan and somebody else changed the slice."""
        if self.expected is None:
            yield
            return
        with self.expected.held():
            self.expected.next_call()
            yield

    def _record(self) -> dict[str, Any] | None:
        view = self.plan.view
        return self.installation.db.get_slice(int(view["slice_id"])) if view is not None else None

    def _kept(self, record: Mapping[str, Any] | None) -> dict[str, Any]:
        site = self.api.context.site
        return topology_plans.kept(self.plan, self.basis, self.topology.name, record, site.installation)

    def _known(self, user: str) -> Known:
        """What there is here, so that a name that is not there is a mistake of the file."""
        done, images = self.api.list_images(user or NEW_OWNER)
        return Known(
            flavors=tuple(self.installation.settings.flavors),
            images=tuple(str(one["name"]) for one in images["images"]) if done else None,
            workers=tuple(self.installation.db.data["workers_list"]),
        )

    def _slice(self, words: str, user: str) -> dict[str, Any] | None:
        if words:
            return self.installation.one_slice(words, user)
        named = [one for one in self.installation.db.list_slices() if one["name"] == self.topology.name]
        own = [one for one in named if one["owner"] == user] if user else named
        return self.installation.one_slice(self.topology.name, user) if own else None

    @property
    def found(self) -> Difference:
        """What is to be done."""
        return self.plan.difference

    def document(self, **more: Any) -> dict[str, Any]:
        """What a program reads of it."""
        view = self.plan.view
        return {
            "file": self.topology.source,
            "name": self.topology.name,
            "slice_id": view["slice_id"] if view is not None else None,
            "actions": [action.to_dict() for action in self.found.actions],
            "lost": list(self.found.lost),
            **more,
        }

    def show(self) -> None:
        """The actions, a line each."""
        view = self.plan.view
        about = f"slice {view['slice_id']}, which is {view['status']}" if view is not None else "a new slice"
        actions = self.found.actions
        if not actions:
            self.screen.line((f"{self.topology.name} is as the file says ({about}).", GOOD))
            return
        self.screen.line((f"{self.topology.name}: {count(len(actions), 'change')} of {about}.", STRONG))
        for action in actions:
            self.screen.line(*_line(action))


def _line(action: Action) -> tuple[tuple[str, str], str]:
    is_removal = action.kind in (REMOVE_VM, REMOVE_LINK)
    return ("  - ", BAD) if is_removal else ("  + ", GOOD), action.text


def from_plan(context: typer.Context, path: str, user: str, *, as_json: bool) -> FileWork:
    """The work that a kept plan is about.

    Args:
        context: typer's.
        path: of the plan.
        user: who acts; "" = whoever it was made for.
        as_json: whether a document is wanted.

    Raises:
        CloudError: it is none, or file or slice have moved.
        NotDone: it cannot be read, or was made for somebody else.
    """
    saved = plan_in(Path(path))
    basis = topology_plans.basis_of(
        saved, Work(context, NAME, as_json=as_json, reminds=False).api.context.site.installation
    )
    if user and user != basis.user:
        raise NotDone(f"The plan was made for {basis.user}, and {user} cannot apply it.", code="plan.user")
    _require_file(basis)
    try:
        work = FileWork(
            context,
            basis.file or "-",
            basis.text,
            variables=basis.variables,
            slice=str(saved["slice_id"]) if saved["slice_id"] is not None else "",
            user=basis.user,
            replace=basis.replace,
            as_json=as_json,
        )
    except NotDone as error:
        if error.answer.code == "slice.unknown":
            raise topology_plans.stale([f"slice {saved['slice_id']} was removed"]) from error
        raise
    work.go_on_from(saved)
    return work


def _require_file(basis: Basis) -> None:
    """A file that was changed is meant as it is now, and so it takes a new plan.

    Raises:
        RefusedError: it was changed, or is gone.
    """
    if not basis.file:
        return
    try:
        now = text_of(basis.file)
    except OSError as error:
        raise topology_plans.stale([f"{basis.file} went away ({error.strerror or error})"]) from error
    if now != basis.text:
        raise topology_plans.stale([f"{basis.file} was changed"])


def show_plan(work: FileWork, file: str = "") -> int:
    """Show what `apply` would do, and keep it in a file where one is named; 2 when there is something."""
    if work.found.refusals:
        raise calls.refusal(work.topology, work.found)
    if file:
        save(Path(file), work.kept())
    if work.as_json:
        documents.write({"command": NAME, **work.document(), "differences": len(work.found.actions)})
    else:
        work.show()
        if file:
            work.screen.line(f"The plan is in {file}: ./cloud topology apply --plan {file}")
    return DIFFERENCES if work.found.actions else DONE


def apply(work: FileWork, *, deploy: bool, yes: bool) -> int:
    """Do it, after a yes where something is lost."""
    if work.found.refusals:
        raise calls.refusal(work.topology, work.found)
    removed = [action.node for action in work.found.actions if action.kind == REMOVE_VM]
    if not work.as_json:
        work.show()
    if removed and not yes:
        ask = questions(aside=work.as_json)
        if not ask.yes(f"Remove {', '.join(removed)} with what is on their disks"):
            raise NotDone("Nothing was changed.", code="unanswered")
    told = (lambda action: None) if work.as_json else (lambda action: work.screen.line((f"  {action.text} …", FAINT)))
    done = calls.apply(work.api, work.acting, work.topology, work.plan, told, work.expected)
    view: dict[str, Any] = work.done(work.api.get_slice(work.acting, done.slice_id))
    if deploy and view["status"] in ("design", "stopped"):
        with work.unmoved():
            call = work.api.deploy_slice if view["status"] == "design" else work.api.start_slice
            work.done(call(work.acting, done.slice_id))
        view = work.done(work.api.get_slice(work.acting, done.slice_id))
    work.ids(done.slice_id)
    document = work.document(done=len(done.done), status=view["status"])
    if work.as_json:
        return work.end({**document, "slice_id": done.slice_id})
    if done.done or deploy:
        work.screen.line((f"Slice {done.slice_id} ({view['name']}) is as the file says; it is {view['status']}.", GOOD))
    if view["status"] == "design":
        work.screen.line((f"`./cloud deploy {done.slice_id}` brings it up.", FAINT))
    return DONE


def export(work: SliceWork, output: Path | None, var: list[str] | None, *, pinned: bool) -> int:
    """Write a slice as a file. One that is there is brought up to date, with its comments."""
    from cloudrepo.topology import slices, writing

    view = work.view()
    topology = slices.topology_of(view, pinned=pinned)
    left = slices.expressible(view, tuple(work.installation.settings.flavors))
    text = _text(topology, output, var) if output is not None else writing.text_of(topology)
    if output is not None:
        output.write_text(text, encoding="utf-8")
        work.screen.line((f"Slice {work.slice_id} is in {output}.", GOOD))
    elif not work.as_json:
        sys.stdout.write(text)
    for line in left:
        work.screen.line(f"Not as it is: {line}.")
    told = {"file": str(output) if output is not None else None, "text": text, "not_expressed": left}
    return work.end(told)


def _text(topology: Topology, output: Path, var: list[str] | None) -> str:
    from cli.topology_files import given
    from cloudrepo.topology import writing

    if not output.exists():
        return writing.text_of(topology)
    return writing.updated(text_of(str(output)), topology, source_of(str(output)), given(var))
