"""One-shot commands on slices: deploy, delete, start, stop, resume, rollback. An operator acts as the owner."""

from __future__ import annotations

import getpass
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import documents
from cli.documents import NotDone
from cli.options import As, DryRun, Json, Slice, SliceOrAll, Wait, Yes
from cli.text import count
from cli.work import Work, questions

if TYPE_CHECKING:
    from cli.background import Result
    from cli.screens.context import Context

log = logging.getLogger(__name__)

DONE, FAILED, INTERRUPTED = 0, 1, 130

app = typer.Typer()


Ended = Annotated[
    bool, typer.Option("--ended", help="The process on another host has ended: its host is gone for good.")
]


@app.command()
def deploy(
    context: typer.Context,
    slice: Slice,
    user: As = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Bring a designed slice up."""
    job = Job(context, "deploy", user, as_json)
    return job.plan(slice) if dry_run else job.run(slice, wait=wait)


@app.command()
def delete(
    context: typer.Context,
    slice: Slice,
    user: As = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Take a slice down, its disks too, and forget it."""
    job = Job(context, "delete", user, as_json)
    return job.plan(slice) if dry_run else job.run(slice, wait=wait, asks=not yes)


@app.command()
def start(
    context: typer.Context,
    slice: Slice,
    user: As = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Start a stopped slice, its disks as they were."""
    job = Job(context, "start", user, as_json)
    return job.plan(slice) if dry_run else job.run(slice, wait=wait)


@app.command()
def stop(
    context: typer.Context,
    slice: Slice,
    user: As = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Stop all machines of a slice; its disks stay."""
    job = Job(context, "stop", user, as_json)
    return job.plan(slice) if dry_run else job.run(slice, wait=wait)


@app.command()
def resume(
    context: typer.Context,
    slice: SliceOrAll = None,
    user: As = "",
    as_json: Json = False,
    ended: Ended = False,
    gone: Annotated[
        list[str] | None,
        typer.Option("--gone", metavar="IP", help="This host will never be back: what it had is not waited for."),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Only list what is unfinished.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Go on with what was under way when a process or a host died."""
    _require_slice(slice, ended=ended, gone=gone or (), list_only=list_only)
    job = Job(context, "resume", user, as_json)
    if list_only:
        return job.show(slice)
    if dry_run:
        return job.rehearse(slice, ended=ended, gone=tuple(gone or ())) if slice else job.rehearse_all()
    return job.run(slice, ended=ended, gone=tuple(gone or ())) if slice else job.run_all()


def _require_slice(slice: str | None, *, ended: bool, gone: Sequence[str], list_only: bool) -> None:
    """What is given up is given up for one slice by name.

    Raises:
        typer.BadParameter: none is named, or something is to be given up by a list.
    """
    option = "--ended" if ended else "--gone"
    if not (ended or gone) or (slice and not list_only):
        return
    if list_only:
        raise typer.BadParameter("--list only looks; leave one of the two out", param_hint=option)
    words = "".join([" --ended" if ended else "", *(f" --gone {ip}" for ip in gone)])
    raise typer.BadParameter(
        f"say of which slice: ./cloud resume SLICE{words}. ./cloud resume --list shows what is unfinished",
        param_hint=option,
    )


@app.command()
def rollback(
    context: typer.Context,
    slice: Slice,
    user: As = "",
    as_json: Json = False,
    ended: Ended = False,
    dry_run: DryRun = False,
) -> int:
    """Take back what was under way when a process or a host died."""
    job = Job(context, "rollback", user, as_json)
    return job.rehearse(slice, ended=ended) if dry_run else job.run(slice, ended=ended)


class Job(Work):
    """One command under way: which slices it means, what became of each, and how that is said."""

    def __init__(self, context: typer.Context, verb: str, user: str, as_json: bool) -> None:
        super().__init__(context, verb, as_json=as_json, reminds=verb not in ("resume", "rollback"))
        self.verb = verb
        self.user = user
        self.ended: list[dict[str, Any]] = []
        self.wrong: dict[str, Any] | None = None
        self.status = DONE

    def run(self, words: str, *, asks: bool = False, **options: Any) -> int:
        """Do it to the slice that an id or a name means.

        Args:
            words: the id or name.
            asks: ask a person at a terminal first.
            options: of the façade's call; `wait` is ours.
        """
        try:
            record = self.installation.one_slice(words, self.user)
        except NotDone as error:
            self.screen.complain(error.answer)
            self._note(None, False, error.answer)
        else:
            if asks and sys.stdin.isatty():
                self._ask_about(record)
            self._do(record, **options)
        return self._end()

    def plan(self, words: str) -> int:
        """Show what it would do to that slice."""
        from cli.plans import show_plan

        record = self.installation.one_slice(words, self.user)
        return show_plan(self, self.user or str(record["owner"]), self.verb, int(record["slice_id"]))

    def rehearse(self, words: str, **options: Any) -> int:
        """Show what a recovery of that slice would do.

        Args:
            words: its id or name.
            options: of the façade's call.
        """
        from cli.plans import end_plan

        return end_plan(self, self._rehearsed(self.installation.one_slice(words, self.user), options))

    def rehearse_all(self) -> int:
        """Show what a recovery of all that nobody is at would do; the worst of the statuses."""
        from cli import plans

        found = []
        for slice_id in self._dead_slices(self._unfinished()):
            record = self.installation.db.get_slice(slice_id)
            if record is not None:
                found.append(self._rehearsed(record, {}))
        wrong = next((problem for one in found if (problem := plans.wrong_with(one)) is not None), None)
        if self.as_json:
            documents.write({"command": self.verb, "dry_run": True, "plans": found}, wrong=wrong)
        else:
            self._show_plans(found)
        if wrong is not None:
            return FAILED
        return plans.DIFFERENCES if any(one["differences"] for one in found) else DONE

    def _show_plans(self, found: Sequence[dict[str, Any]]) -> None:
        from cli import plans

        for one in found:
            plans.show(self.screen, one)
            wrong = plans.wrong_with(one)
            if wrong is not None:
                self.screen.complain(wrong["message"])
        if not found:
            self.screen.line("Nothing is unfinished.")

    def _rehearsed(self, record: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        acting = self.user or str(record["owner"])
        wish = {"slice_id": int(record["slice_id"]), **options}
        call = "apply_plan" if self.verb == "apply" else self.verb
        plan: dict[str, Any] = self.done(self.api.rehearse(acting, call, wish))
        return plan

    def _ask_about(self, record: dict[str, Any]) -> None:
        from cli.screens.context import summary

        if not questions(aside=self.as_json).yes(f"Delete slice {summary(record)} and all disks", default=False):
            raise NotDone("Nothing was deleted. `--yes` asks nothing.", code="unanswered")

    def run_all(self) -> int:
        """Resume all that nobody is at; Ctrl-C leaves those that were not begun as they are."""
        found = [one for one in self._unfinished() if one["is_dead"]]
        if not found:
            self.screen.line("Nothing is unfinished.")
        slices = self._dead_slices(found)
        for number, slice_id in enumerate(slices, 1):
            for one in found:
                if one["slice_id"] == slice_id:
                    self.screen.line(one["text"])
            record = self.installation.db.get_slice(slice_id)
            if record is not None and self._do(record).was_stopped and slices[number:]:
                self._leave(slices[number:])
                break
        return self._end()

    @staticmethod
    def _dead_slices(found: Sequence[dict[str, Any]]) -> list[int]:
        """The slices with something that nobody is at."""
        return list(dict.fromkeys(int(one["slice_id"]) for one in found if one["is_dead"]))

    def _leave(self, slices: Sequence[int]) -> None:
        ids = ", ".join(map(str, slices))
        text = f"{count(len(slices), 'slice')} not begun, since you stopped it: {ids}"
        self.screen.line(text)
        self.status = INTERRUPTED
        self.wrong = self.wrong or documents.error(text, code="stopped")

    def show(self, words: str | None) -> int:
        """Say what is unfinished, of one slice if it is named, and change nothing."""
        slice_id = self.installation.one_slice(words)["slice_id"] if words else None
        found = [one for one in self._unfinished() if slice_id in (None, one["slice_id"])]
        if self.as_json:
            documents.write({"command": self.verb, "unfinished": found})
            return DONE
        for one in found:
            self.screen.line(one["text"])
        if not found:
            self.screen.line("Nothing is unfinished.")
        return DONE

    def _unfinished(self) -> list[dict[str, Any]]:
        ok, found = self.installation.api.unfinished_operations(self.user or None)
        if not ok:
            raise NotDone(found)
        return list(found)

    def _do(self, record: dict[str, Any], *, wait: bool = True, **options: Any) -> Result:
        from cli.operation import perform, show_result
        from cli.screens.context import Context

        acting = self.user or str(record["owner"])
        log.info("%s of slice %s by the operator %s as %s", self.verb, record["slice_id"], getpass.getuser(), acting)
        surroundings = Context(self.installation.api, acting, self.screen, questions(aside=self.as_json))
        if not wait:
            result = self._hand_over(surroundings, record)
        else:
            result = perform(surroundings, self.verb, int(record["slice_id"]), **options)
        show_result(surroundings, result)
        self._note(record, result.ok, result.answer, seconds=result.seconds)
        if result.ok:
            self.ids(record["slice_id"])
        if result.kept is not None:
            self.status = INTERRUPTED
        return result

    def _hand_over(self, surroundings: Context, record: dict[str, Any]) -> Result:
        from cli.background import Result

        ok, answer = self.installation.api.hand_over(surroundings.username, int(record["slice_id"]), self.verb)
        return Result(ok, answer, 0.0)

    def _note(self, record: dict[str, Any] | None, ok: bool, answer: object, *, seconds: float = 0) -> None:
        said = documents.error(answer, code="done" if ok else "error")
        slice_id, name = (record["slice_id"], record["name"]) if record else (None, None)
        self.ended.append({"slice_id": slice_id, "name": name, "ok": ok, **said, "seconds": round(seconds, 3)})
        if not ok:
            self.status = self.status or FAILED
            self.wrong = self.wrong or said

    def _end(self) -> int:
        if self.as_json:
            documents.write({"command": self.verb, "operations": self.ended}, wrong=self.wrong)
        return self.status
