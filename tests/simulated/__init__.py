"""Simulated hosts: the real runner on pretended machines whose tools keep real state.

How it works:

* A `world.World` is a directory and one process, the simulator (`simulator.py`), which keeps the state of all its
  hosts (`state.py`). It is forked by a small process (`nursery.py`), and ends with everything it started when the
  test ends, however that ends. A world can be copied with all that runs in it (`take_picture`).
* A host's files are in `<directory>/<name>/root/`. Its whole PATH is `bin/`, which holds one name a tool, all of them
  `client.pl`: a program of a few lines that hands its words and its stdin to the simulator and prints what comes
  back. perl-base is on every Debian and starts in 1.5 ms, Python in 8.
* `tools/` answers: one module a tool, a function from words to an `Answer`, written from what the tools do
  (`test_conformance.py` runs the same commands on a lab host). What a tool does not know, it refuses with a status and
  words like those of the real one. A tool that nobody wrote is not in PATH.
* The runner is the real one. `runners.py` forks it from the simulator, where Python and its modules are loaded, and
  before it begins puts the process into `jail.py`: paths then mean the host's `root/`, as after a chroot.
* QEMU and dnsmasq are real processes: the client stays, with the tool's words in its command line, and can be killed or
  stopped like any other; its QMP socket is answered by the simulator. Two QEMUs on one disk are refused as by
  QEMU, and noted in `violations`.
* The simulator counts *points*: before and after each tool call, each act that changes something, each message. At
  one of them it can kill a process, cut a host's connections, or take its power. `crashes.py` uses that.

Why it is so: `docs/decisions/0009-simulated-hosts.md`.
"""
