"""Workers: enrol, list, and trust the key of a host that is new or was installed anew."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import documents
from cli.ask import Ask
from cli.documents import NotDone
from cli.installation import Installation
from cli.screen import FAINT, GOOD, Screen
from cli.screens.cluster import show_cluster

if TYPE_CHECKING:
    from cli.work import Work
    from cloudrepo.known_hosts import KnownHosts

DIFFERENCES = 2  # the exit status of a dry run that found something


def add_worker(
    installation: Installation, address: str, screen: Screen, wishes: Mapping[str, str] | None, *, as_json: bool
) -> int:
    """Contact a host, pin its key, and put it into `workers_list`.

    Args:
        installation: where it is enrolled.
        address: the host's.
        screen: for people.
        wishes: `uplink`, `admin` and `datapath` of a host that is made a worker first; None = it is one.
        as_json: whether a document is written.

    Returns:
        The exit status: 0 when it answered and nothing is wrong with it. One that does not answer is enrolled
        nevertheless and asked at each start, but not where it could not be made a worker.

    Raises:
        NotDone: it could not be made a worker, or the address is none.
    """
    ip = _address(address)
    made: dict[str, Any] = {"changed": [], "warnings": []}
    if wishes is not None:
        ok, made = installation.api.bootstrap_worker(ip, **wishes)
        if not ok:
            raise NotDone(made)
        for line in made["changed"] or ["nothing was changed: all was as it should be"]:
            screen.line(f"{ip}: {line}")
        for line in made["warnings"]:
            screen.complain(f"{ip}: {line}")
    with installation.db.transaction() as data:
        known = data.setdefault("workers_list", [])
        is_new = ip not in known
        if is_new:
            known.append(ip)
    screen.line(f"{ip} is enrolled." if is_new else f"{ip} was enrolled already.")
    ok = _ask_worker(installation, ip, screen)
    if as_json:
        wrong = None if ok else documents.error(f"{ip} cannot be used as it is", code="worker.problems")
        worker = {"ip": ip, "is_new": is_new, "problems": problems_of(installation, ip)}
        documents.write({"command": "worker add", **worker, **made}, wrong=wrong)
    return 0 if ok else 1


def problems_of(installation: Installation, ip: str) -> list[str]:
    """What keeps a worker from its work, as discovery found it; why it did not answer."""
    found = installation.api.discovery.results().get(ip)
    if found is None:
        return [f"{ip} was not asked"]
    return list(found.problems) if found.ok else [found.reason]


def list_workers(work: Work) -> int:
    """Ask all workers, then show them; the exit status.

    Raises:
        NotDone: the records cannot be read.
    """
    work.api.discovery.discover_all()
    answer = work.done(work.api.cluster_status())
    work.ids(*(worker["ip"] for worker in answer["workers"]))
    if not work.as_json:
        show_cluster(work.screen, answer)
    return work.end({"workers": answer["workers"], "network_node": answer["network_node"]})


def trust_worker(
    installation: Installation,
    address: str,
    screen: Screen,
    ask: Ask,
    *,
    assume_yes: bool,
    dry_run: bool = False,
    as_json: bool,
) -> int:
    """Show the pinned key of a host and the one that it shows now, and pin the latter after a yes.

    It is the key that was shown that is pinned, not the one of a later contact. Whoever shows none keeps its pin.

    Returns:
        The exit status: 0 when the key is pinned, and nothing is wrong with the host if it is a worker; 2 when a dry
        run found another key than the pinned one.

    Raises:
        NotDone: the address is none, or it was not agreed to.
        HostError: the host shows no key.
    """
    ip = _address(address)
    pins, port = _known_hosts(installation), installation.settings.ssh.port
    before = pins.pins(ip, port)
    for kind, key in before.items():
        screen.line(f"Pinned for {ip}: {kind} {_fingerprint(key)}")
    shown_kind, shown = installation.api.executor.transport.shown_key(ip)
    screen.line(f"{ip} shows now: {shown_kind} {_fingerprint(shown)}")
    is_worker = ip in installation.db.data["workers_list"]
    document = {
        **{"command": "worker trust", "ip": ip, "changed": before.get(shown_kind) != shown, "is_worker": is_worker},
        "shown": _key(shown_kind, shown),
        "pinned_before": [_key(kind, key) for kind, key in before.items()],
    }
    if not document["changed"]:
        screen.line((f"{ip} shows the key that is pinned; nothing was changed.", GOOD))
        return _ended(document, as_json=as_json)
    if dry_run:
        screen.line(f"It would be pinned for {ip} in {pins.path}; nothing was changed.")
        return _ended({**document, "dry_run": True}, as_json=as_json) or DIFFERENCES
    screen.line(f"Compare on its own screen: `ssh-keygen -lf /etc/ssh/ssh_host_{_file_of(shown_kind)}_key.pub`")
    question = "Forget the pinned key and trust the one it shows" if before else "Trust this key"
    if not assume_yes and not ask.yes(question, default=False):
        raise NotDone("Nothing was changed.", code="unanswered")
    pins.replace(ip, port, shown_kind, shown)
    screen.line((f"The key is pinned for {ip} in {pins.path}.", GOOD))
    if not is_worker:
        screen.line(f"{ip} is no worker of this installation yet. `./cloud worker add {ip}` enrols it.")
        return _ended(document, as_json=as_json)
    wrong = None if _ask_worker(installation, ip, screen) else problems_of(installation, ip)
    return _ended(document, as_json=as_json, problems=wrong)


def _key(kind: str, key: bytes) -> dict[str, str]:
    return {"type": kind, "fingerprint": _fingerprint(key)}


def _ended(document: Mapping[str, Any], *, as_json: bool, problems: Sequence[str] | None = None) -> int:
    """Write the document where one is wanted; the exit status.

    Args:
        document: its own keys.
        as_json: whether one is wanted.
        problems: what keeps the worker from its work; None = nothing.
    """
    wrong = documents.error(f"{document['ip']}: {'; '.join(problems)}", code="worker.problems") if problems else None
    if as_json:
        documents.write({**document, "problems": list(problems or ())}, wrong=wrong)
    return 1 if problems is not None else 0


def harden_worker(
    installation: Installation,
    address: str,
    screen: Screen,
    ask: Ask,
    *,
    admin: str,
    undo: bool,
    assume_yes: bool,
    as_json: bool,
) -> int:
    """Install the helper on a host, or take it away, and say what was changed; the exit status, 0.

    Raises:
        NotDone: the address is none, it was not agreed to, or the façade refuses.
    """
    ip = _address(address)
    account = installation.settings.ssh.user
    if undo:
        screen.line(f"This installation can do nothing on {ip} any more with host.privilege: helper.")
    else:
        screen.line(f"{account} will be able to run one program as root on {ip}, the helper, and nothing else.")
        screen.line("Whoever administers that host needs another way to be root: this account will be none.")
    if not assume_yes and not ask.yes("Go on", default=False):
        raise NotDone("Nothing was changed.", code="unanswered")
    ok, answer = installation.api.harden_worker(ip, admin=admin, undo=undo)
    if not ok:
        raise NotDone(answer)
    for line in answer["changed"] or ["nothing: all was as it should be"]:
        screen.line(f"{ip}: {line}")
    for line in answer["warnings"]:
        screen.complain(f"{ip}: {line}")
    if not undo and installation.settings.host.privilege != "helper":
        screen.line("Set `host.privilege: helper` in settings.yaml when all hosts have it.")
    if as_json:
        documents.write({"command": "worker harden", "ip": ip, "undo": undo, **answer, "script": None})
    return 0


def print_hardening(installation: Installation, address: str, *, undo: bool, as_json: bool) -> int:
    """Print the same as a script, for a host whose administrator gives no account away; the exit status, 0.

    Raises:
        NotDone: the address is none.
    """
    from control.hardening import script

    ip = _address(address)
    text = script(installation.api.context, ip, undo=undo)
    if as_json:
        nothing: dict[str, list[str]] = {"changed": [], "warnings": []}
        documents.write({"command": "worker harden", "ip": ip, "undo": undo, **nothing, "script": text})
    else:
        print(text)  # nothing else: it goes into a file
    return 0


def _ask_worker(installation: Installation, ip: str, screen: Screen) -> bool:
    """Ask all workers what they are; say what this one answered and which key is pinned."""
    found = installation.api.discovery.discover_all().get(ip)
    for kind, key in _known_hosts(installation).pins(ip, installation.settings.ssh.port).items():
        screen.line((f"Its key is pinned: {kind} {_fingerprint(key)}", FAINT))
    if found is None or found.worker is None:
        screen.complain(found.reason if found else f"{ip} was not asked")
        return False
    worker = found.worker
    sizes = f"{worker['max_cores']:g} cores, {worker['max_ram_gb']:g} GB RAM, {worker['max_disk_gb']:g} GB disk"
    screen.line((f"{ip} answers: {sizes}.", GOOD))
    for problem in found.problems:
        screen.complain(problem)
    return not found.problems


def _address(text: str) -> str:
    """An IP address in its usual form.

    Raises:
        NotDone: it is none.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        told = f"A worker is named by its IP address, such as 10.0.10.4; found {text!r}."
        raise NotDone(told, code="worker.address") from None


def _known_hosts(installation: Installation) -> KnownHosts:
    from cloudrepo.known_hosts import KnownHosts

    options = installation.api.executor.options
    return KnownHosts(options.known_hosts, options.host_keys)


def _fingerprint(key: bytes) -> str:
    from cloudrepo.known_hosts import fingerprint

    return fingerprint(key)


def _file_of(kind: str) -> str:
    """How OpenSSH names the file of a host key of this type."""
    for name in ("ed25519", "ecdsa"):
        if name in kind:
            return name
    return "rsa"
