"""What `--help` begins with: command lines that work, by the words that name a command."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 6  # of a group: the first of each of its commands

#: Words after `./cloud`. The first of each says the usual; all are tried by tests/test_cli_help.py.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("lab up", "slice create lab", "vm add lab web", "deploy lab", "status", "exec web -- uname -a"),
    "menu": ("menu", "menu --state /srv/class/database.yaml"),
    "init": ("init class",),
    "status": ("status", "status --json --no-wait"),
    "log": ("log", "log -n 200 -f"),
    "monitor": ("monitor", "monitor --print-unit"),
    "events": ("events", "events --about 'slice 1000' --json", "events -f"),
    "cleanup": ("cleanup --dry-run", "cleanup --host 10.0.10.2 --yes"),
    "drift": ("drift", "drift lab --json", "drift --fix"),
    "verify": ("verify", "verify lab --json"),
    "path": ("path web:eth1 db:eth1", "path web:eth0 gateway --json"),
    "console": ("console web", "console lab/web"),
    "vnc": ("vnc web", "vnc 1001"),
    "exec": (
        "exec web -- uname -a",
        "exec web --json --timeout 5 -- ping -c 1 192.168.100.12",
        "exec -i web -- sh",
        "exec web --by ssh --user student -- id",
    ),
    "restart-policy": ("restart-policy web always", "restart-policy web default --dry-run"),
    "deploy": ("deploy lab", "deploy lab --dry-run", "deploy 1000 --json", "deploy lab --no-wait"),
    "delete": ("delete lab", "delete 1000 --yes"),
    "start": ("start lab", "start lab --as ann"),
    "stop": ("stop lab", "stop 1000 --json"),
    "resume": ("resume --list", "resume --dry-run", "resume", "resume lab --gone 10.0.10.2"),
    "rollback": ("rollback lab", "rollback lab --dry-run"),
    "plan": ("plan lab", "plan lab -o lab.plan", "plan lab --action delete --json"),
    "apply": ("apply lab.plan", "apply lab.plan --dry-run", "apply lab.plan --json"),
    "slice create": ("slice create lab", "slice create lab --as ann -q", "slice create lab --dry-run"),
    "slice list": ("slice list", "slice list --as ann", "slice list -q"),
    "slice show": ("slice show lab", "slice show 1000 --json"),
    "slice remove": ("slice remove lab", "slice remove 1000 --yes"),
    "vm add": ("vm add lab web", "vm add lab router -i 3 --internet --flavor ubuntu", "vm add lab web --dry-run"),
    "vm list": ("vm list", "vm list lab --json", "vm list -q"),
    "vm show": ("vm show web", "vm show lab/web --json"),
    "vm remove": ("vm remove web", "vm remove 1001 --dry-run"),
    "vm start": ("vm start web",),
    "vm stop": ("vm stop web", "vm stop 1001 --dry-run"),
    "link list": ("link list lab", "link list lab --json"),
    "link add": ("link add lab web:eth1 db:eth1", "link add lab web:eth2 db:eth2 --no-dhcp --spoofing allowed"),
    "link set": ("link set lab 1 --spoofing allowed", "link set lab 1 --dhcp"),
    "link remove": ("link remove lab 1",),
    "worker add": ("worker add 10.0.10.4",),
    "worker remove": ("worker remove 10.0.10.4", "worker remove 10.0.10.4 --dry-run"),
    "worker drain": ("worker drain 10.0.10.4", "worker drain 10.0.10.4 --undo"),
    "worker list": ("worker list", "worker list --json"),
    "worker trust": ("worker trust 10.0.10.2", "worker trust 10.0.10.2 --dry-run", "worker trust 10.0.10.2 --yes"),
    "worker harden": ("worker harden 10.0.10.2", "worker harden 10.0.10.2 --print"),
    "user add": ("user add ann", "user add ann --role instructor --generate --vms 12"),
    "user list": ("user list", "user list --json"),
    "user quota": ("user quota ann", "user quota ann --vms 12 --ram unlimited", "user quota ann --vms 9 --dry-run"),
    "user role": ("user role ann instructor",),
    "user passwd": ("user passwd ann --generate",),
    "user remove": ("user remove ann", "user remove ann --give-slices-to admin --dry-run"),
    "image add": (
        "image add debian.qcow2",
        "image add disk.img --name lab-disk --format raw",
        "image add debian.qcow2 --dry-run",
    ),
    "image list": ("image list", "image list --json"),
    "image remove": ("image remove debian", "image remove debian --dry-run"),
    "state check": ("state check", "state check --json"),
    "state history": ("state history",),
    "state restore": ("state restore 3 --dry-run", "state restore 3", "state restore backup --yes"),
    "state use": ("state use yaml --dry-run", "state use yaml", "state use journal --yes"),
    "state export": ("state export", "state export copy.yaml"),
    "state rebuild": ("state rebuild", "state rebuild --host 10.0.10.2 --force"),
    "config show": ("config show", "config show --origin", "config show ssh --json"),
    "completion": ("completion bash", "completion zsh", "completion fish"),
    "doctor": ("doctor", "doctor --json", "doctor --fix --dry-run"),
    "doctor access": ("doctor access", "doctor access --account class --json"),
    "draw": ("draw lab", "draw lab -o lab.svg"),
    "topology validate": ("topology validate lab.cloud.yml",),
    "topology schema": ("topology schema",),
    "topology plan": (
        "topology plan lab.cloud.yml",
        "topology plan lab.cloud.yml --slice lab --json",
        "topology plan lab.cloud.yml -o lab.plan",
    ),
    "topology apply": (
        "topology apply lab.cloud.yml",
        "topology apply lab.cloud.yml --deploy --yes",
        "topology apply --plan lab.plan",
    ),
    "topology export": ("topology export lab -o lab.cloud.yml",),
    "topology draw": ("topology draw lab.cloud.yml -o lab.svg",),
    "topology convert": ("topology convert lab.clab.yml -o lab.cloud.yml",),
    "demo": ("demo", "demo --yes"),
    "lint": ("lint",),
}


def of(path: Sequence[str]) -> list[str]:
    """The examples of a command, or of all in a group, as words after `./cloud`."""
    name = " ".join(path)
    below = [lines[0] for key, lines in EXAMPLES.items() if name and key.startswith(f"{name} ")]
    return [*EXAMPLES.get(name, ()), *below][:MOST]
