# One host's share of the slice away again: machines, servers, NAT, ports, devices, files.
set -euo pipefail

stop_machine() { # stop_machine ID
    perl -e "$QMP" "$RUN/vm-$1/qmp.sock" '{"execute":"quit"}'
    gone "$(<"$RUN/vm-$1/pid")"
}

gone() { # gone PID...: wait for their end
    local pid nap
    exec {nap}<> <(:) # nothing ever comes here: reading it is a sleep without a process
    for pid; do while [[ -d /proc/$pid ]]; do read -rt 0.005 -u "$nap" || :; done; done
}

stop_servers() {
    local -a pids
    [[ -n $VLANS ]] || return 0
    mapfile -t pids < <(cat "$RUN"/dhcp-*/pid)
    kill "${pids[@]}"
    gone "${pids[@]}"
}

forget_nat() {
    iptables-restore --noflush --wait 10 <<END
*filter
:FLOOR-FORWARD - [0:0]
:FLOOR-INPUT - [0:0]
-D FORWARD -m comment --comment $MARK -j FLOOR-FORWARD
-D INPUT -m comment --comment $MARK -j FLOOR-INPUT
-X FLOOR-FORWARD
-X FLOOR-INPUT
COMMIT
*nat
:FLOOR-POSTROUTING - [0:0]
-D POSTROUTING -m comment --comment $MARK -j FLOOR-POSTROUTING
-X FLOOR-POSTROUTING
COMMIT
END
    echo 0 >/proc/sys/net/ipv4/conf/eth2/forwarding
}

ports() { # one transaction
    local -a words=()
    while read -r vlan _; do
        [[ -z $vlan ]] || words+=(-- --if-exists del-port br-int "gw_vlan$vlan" -- --if-exists del-port br-int "dhcp_v$vlan")
    done <<<"$VLANS"
    while read -r id _; do
        for nic in eth0 eth1 eth2; do words+=(-- --if-exists del-port br-int "tap_${id}_$nic"); done
    done <<<"$GUESTS"
    ovs-vsctl --timeout=20 "${words[@]}"
}

device_lines() { # for ip -batch
    while read -r id _; do
        for nic in eth0 eth1 eth2; do echo "link delete dev tap_${id}_$nic"; done
    done <<<"$GUESTS"
    while read -r vlan _; do [[ -z $vlan ]] || echo "netns delete ns-dhcp-vlan$vlan"; done <<<"$VLANS"
}

while read -r id _; do stop_machine "$id" & done <<<"$GUESTS"
for job in $(jobs -p); do wait "$job"; done
stop_servers
[[ -z $VLANS ]] || forget_nat
ports
device_lines | ip -batch -
while read -r _ name _; do rm "$IMAGES/${name}_img.qcow2"; done <<<"$GUESTS"
rm -r "$RUN" "$IMAGES/.floor"
