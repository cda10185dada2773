"""The lab: a real cluster for class labs and tests, made of namespaces on one machine.

Each host of the lab has its own process, mount, network, host-name and IPC
namespaces, runs a real sshd, a real Open vSwitch and whatever the orchestrator
starts there (QEMU, dnsmasq, iptables).  One process holds the whole lab: when
it ends, nothing of the lab is left but the files in its folder.

``lab.cluster.Lab`` is the Python face, ``lab.cli.app`` the command line.
"""
