# One host's share of the slice: devices, ports, DHCP, NAT, machines; $K machines are started at a time.
set -euo pipefail

prepare() { # directories with marks, before anything else
    mkdir -p "$RUN"
    while read -r id _; do
        install -d -m 0700 -o "$ACCOUNT" -g "$ACCOUNT" "$RUN/vm-$id"
        printf '%s\n' "$MARK/$id/" >"$RUN/vm-$id/mark"
    done <<<"$GUESTS"
    while read -r vlan _; do
        [[ -z $vlan ]] || { mkdir -p "$RUN/dhcp-$vlan" && printf '%s\n' "$MARK/-/$vlan" >"$RUN/dhcp-$vlan/mark"; }
    done <<<"$VLANS"
}

device_lines() { # for ip -batch: namespaces, TAPs
    while read -r vlan _; do [[ -z $vlan ]] || echo "netns add ns-dhcp-vlan$vlan"; done <<<"$VLANS"
    while read -r id _; do
        for nic in eth0 eth1 eth2; do
            echo "tuntap add dev tap_${id}_$nic mode tap user $ACCOUNT
link set dev tap_${id}_$nic alias $MARK/$id/$nic
link set dev tap_${id}_$nic addrgenmode none
link set dev tap_${id}_$nic arp off
link set dev tap_${id}_$nic up"
        done
    done <<<"$GUESTS"
}

ports() { # one transaction: tag and mark come with the port
    local -a words=()
    while read -r vlan _; do
        [[ -n $vlan ]] || continue
        for port in "gw_vlan$vlan" "dhcp_v$vlan"; do
            words+=(-- add-port br-int "$port" "tag=$vlan" -- set Port "$port" "external_ids:floor=\"$MARK/-/$vlan\""
                -- set Interface "$port" type=internal)
        done
    done <<<"$VLANS"
    while read -r id _ _ _ mac0 vlan0 mac1 vlan1 mac2 vlan2; do
        for nic in "eth0 $vlan0" "eth1 $vlan1" "eth2 $vlan2"; do
            set -- $nic
            [[ $2 == - ]] || words+=(-- add-port br-int "tap_${id}_$1" "tag=$2"
                -- set Port "tap_${id}_$1" "external_ids:floor=\"$MARK/$id/$1\"")
        done
    done <<<"$GUESTS"
    ovs-vsctl --timeout=20 "${words[@]}"
}

move_lines() { # for ip -batch: the ports of a VLAN into its namespace; the internet's gateway stays outside
    while read -r vlan _; do
        [[ $vlan == 400 ]] || echo "link set dev gw_vlan$vlan netns ns-dhcp-vlan$vlan"
        echo "link set dev dhcp_v$vlan netns ns-dhcp-vlan$vlan"
    done <<<"$VLANS"
}

serve() { # serve VLAN SUBNET RANGE ROUTER: addresses, ARP and the DHCP server inside the namespace
    local folder=$RUN/dhcp-$1 gateway= namespace=/run/netns/ns-dhcp-vlan$1
    reservations "$1" >"$folder/hosts"
    cat >"$folder/dnsmasq.conf" <<END
port=0
no-hosts
no-resolv
no-ping
bind-interfaces
except-interface=lo
interface=dhcp_v$1
dhcp-authoritative
dhcp-range=$3,255.255.255.0,3600s
dhcp-option=option:router$4
dhcp-option=option:dns-server
dhcp-hostsfile=$folder/hosts
dhcp-leasefile=$folder/leases
pid-file=$folder/pid
log-facility=$folder/log
user=nobody
group=nogroup
END
    [[ $1 == 400 ]] || gateway="address replace $2.1/24 dev gw_vlan$1
link set dev gw_vlan$1 alias $MARK/-/$1
link set dev gw_vlan$1 up"
    nsenter --net="$namespace" sh -euc '
        echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
        echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
        echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
        ip -batch -
        exec dnsmasq --conf-file="$1"' sh "$folder/dnsmasq.conf" <<END
link set dev lo alias $MARK/-/$1
link set dev lo up
$gateway
address replace $2.2/24 dev dhcp_v$1
link set dev dhcp_v$1 alias $MARK/-/$1
link set dev dhcp_v$1 up
END
}

reservations() { # reservations VLAN: the hosts file of its DHCP server
    while read -r vlan line; do [[ $vlan != "$1" ]] || echo "$line"; done <<<"$LEASES"
}

nat() { # VLAN 400 to the uplink, and nowhere else
    echo 1 >/proc/sys/net/ipv6/conf/gw_vlan400/disable_ipv6
    ip -batch - <<END
address replace 10.60.7.1/24 dev gw_vlan400
link set dev gw_vlan400 alias $MARK/-/400
link set dev gw_vlan400 up
END
    echo 1 >/proc/sys/net/ipv4/conf/gw_vlan400/forwarding
    echo 1 >/proc/sys/net/ipv4/conf/eth2/forwarding
    iptables-restore --noflush --wait 10 <<END
*filter
:FLOOR-FORWARD - [0:0]
:FLOOR-INPUT - [0:0]
-A FLOOR-FORWARD -i gw_vlan400 -m conntrack --ctstate INVALID -j DROP
-A FLOOR-FORWARD ! -s 10.60.7.0/24 -i gw_vlan400 -j DROP
-A FLOOR-FORWARD -d 10.0.10.0/24 -i gw_vlan400 -j DROP
-A FLOOR-FORWARD -s 10.60.7.0/24 -i gw_vlan400 -o eth2 -j ACCEPT
-A FLOOR-FORWARD -i gw_vlan400 -j DROP
-A FLOOR-FORWARD -i eth2 -o gw_vlan400 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FLOOR-FORWARD -o gw_vlan400 -j DROP
-A FLOOR-INPUT -d 10.60.7.1/32 -i gw_vlan400 -p icmp -j ACCEPT
-A FLOOR-INPUT -i gw_vlan400 -j DROP
-I FORWARD -m comment --comment $MARK -j FLOOR-FORWARD
-I INPUT -m comment --comment $MARK -j FLOOR-INPUT
COMMIT
*nat
:FLOOR-POSTROUTING - [0:0]
-A FLOOR-POSTROUTING -s 10.60.7.0/24 -o eth2 -j MASQUERADE
-I POSTROUTING -m comment --comment $MARK -j FLOOR-POSTROUTING
COMMIT
END
}

network() { # all VLANs at once
    [[ -n $VLANS ]] || return 0
    move_lines | ip -batch -
    while read -r vlan subnet range router; do serve "$vlan" "$subnet" "$range" "$router" & done <<<"$VLANS"
    wait_for_all
    nat
}

wait_for_all() {
    for job in $(jobs -p); do wait "$job"; done
}

machine() { # machine ID NAME UUID SCREEN MAC VLAN MAC VLAN MAC VLAN
    local folder=$RUN/vm-$1 slot nic command
    local -a nics=() orders=('{"execute":"query-uuid"}'
        '{"execute":"set_password","arguments":{"protocol":"vnc","password":"floor"}}')
    command=(qemu-system-x86_64 -name "guest=$2,debug-threads=on" -uuid "$3" -S -nodefaults -no-user-config
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -trace qemu_system_shutdown_request
        -accel tcg -m 128 -smp 1 -drive "file=$IMAGES/$2_img.qcow2,format=qcow2,if=virtio"
        -vga std -vnc "127.0.0.1:$4,password=on" -qmp "unix:$folder/qmp.sock,server=on,wait=off"
        -chardev "socket,id=serial0,path=$folder/serial.sock,server=on,wait=off,logfile=$folder/serial.log"
        -serial chardev:serial0 -device virtio-serial-pci
        -chardev "socket,id=agent0,path=$folder/agent.sock,server=on,wait=off"
        -device virtserialport,chardev=agent0,name=org.qemu.guest_agent.0)
    for nic in "0 $5 $6" "1 $7 $8" "2 $9 ${10}"; do
        set -- "$1" $nic
        slot=$((10 + $2))
        nics+=(-netdev "tap,id=eth$2,ifname=tap_${1}_eth$2,script=no,downscript=no,vnet_hdr=off"
            -device "virtio-net-pci,id=nic-eth$2,netdev=eth$2,mac=$3,addr=0x$slot,romfile=")
        [[ $4 != - ]] || orders+=("{\"execute\":\"set_link\",\"arguments\":{\"name\":\"nic-eth$2\",\"up\":false}}")
    done
    setsid setpriv --reuid="$ACCOUNT" --regid="$ACCOUNT" --init-groups "${command[@]}" "${nics[@]}" \
        </dev/null >"$folder/qemu.log" 2>&1 &
    echo $! >"$folder/pid"
    perl -e "$QMP" "$folder/qmp.sock" "${orders[@]}" '{"execute":"cont"}'
}

machines() { # $K at a time
    local running=0 words
    while read -r words; do
        ((running < K)) || wait -n
        machine $words &
        running=$((running + 1))
    done <<<"$GUESTS"
    wait_for_all
}

prepare
device_lines | ip -batch -
ports
network
machines
