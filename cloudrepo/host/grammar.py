"""What the installed helper does for an orchestrator, and nothing else: tables of acts and commands. Pure.

A line of a table is what may be asked. In it

* `<word>` stands for what `WORDS` says of that word,
* `…` behind the last word: one or more such words,
* `< NAME` at the end: each line of the standard input is a line of the table of that name,
* `{NAME}` at the end: the further words are lines of that table, one after another,
* `|` between the values of a field: one of them; `*` behind a field: a list of such values, of any length,
* `:NAME` as a value: a text, of which a function of that name in `texts.py` says whether it will do.

Everything that is in no line is refused: another act, another option, a word more, a line break. Whose the named things
are is the question of `ownership.py`. Standard library only: it is installed on hosts as a part of one file.
"""

from __future__ import annotations

#: What a word in a table may be: a regular expression. {braces} are filled in for the installation, see `Bounds`.
WORDS = {
    "run": "{run}",  # what lives until the next boot: /run/cloudrepo-INSTALLATION
    "base": "{base}",  # the image folder
    "store": "{store}",  # our own directory in it, which survives a reboot
    "above": "{above}",  # the image folder and each directory that it is in
    "home": "{home}",  # of the account that logs in
    "account": "{account}",
    "user": "{users}|[1-9][0-9]{{4,9}}",  # accounts that QEMU runs as, never root; or the number of the VM named
    "bridge": "{bridge}",
    "installation": "{installation}",
    "mark": "cloudrepo/{installation}/[0-9A-Za-z_]{{1,20}}/(?:[0-9]{{1,9}}|-)/[0-9A-Za-z_.:-]{{0,200}}",
    "cookie": "0x[0-9a-f]{{1,16}}",
    "id": "(?:0|[1-9][0-9]{{0,8}})",
    "number": "(?:0|[1-9][0-9]{{0,18}})",
    "seconds": "[0-9]{{1,6}}(?:[.][0-9]{{1,6}})?",
    "hex": "[0-9a-f]{{1,2}}",
    "experiment": "f{{12}}[0-9a-f]{{12}}88b5(?:[0-9a-f]{{2}}){{8,1500}}",  # a broadcast of the EtherType for trying
    # one of these in a VLAN of ours, also to the address in which bridges' own frames cross switches, and DHCPDISCOVER
    "tried": "(?:f{{12}}|0343520000[0-9a-f]{{2}})[0-9a-f]{{12}}81000[0-9a-f]{{3}}88b5(?:[0-9a-f]{{2}}){{8,1500}}",
    "asked": "f{{12}}[0-9a-f]{{12}}81000[0-9a-f]{{3}}080045[0-9a-f]{{16}}11[0-9a-f]{{4}}0{{8}}f{{8}}"
    "00440043[0-9a-f]{{4}}000001010600[0-9a-f]{{8}}0{{40}}[0-9a-f]{{12}}0{{404}}63825363350101(?:[0-9a-f]{{2}}){{8,64}}",
    "elsewhere": "45[0-9a-f]{{14}}0111[0-9a-f]{{12}}c0000201(?:[0-9a-f]{{2}}){{8,64}}",  # UDP to nobody, for one hop
    "frame": "(?:[0-9a-f]{{2}}){{14,9018}}",
    "digest": "[0-9a-f]{{64}}",
    "token": "[0-9a-f]{{16}}",  # what marks the frames of one proof
    "device": "[0-9A-Za-z_.-]{{1,15}}",  # any: only where nothing is changed by naming it
    "some": "[0-9a-f]{{8}}",  # an installation, any
    "tagged": "[1-9][0-9]{{3}}",  # a VLAN as OpenFlow 1.3 writes it, with the bit that says that there is one
    "vlan": "[1-9][0-9]{{0,3}}",
    "tap": "tap_(?:[0-9]{{1,9}}_eth[0-9]{{1,3}}|h[0-9a-f]{{8}})",
    "wire": "(?:gw_vlan|dhcp_v)[1-9][0-9]{{0,3}}",  # a gateway's or DHCP server's port
    "space": "(?![.])[0-9A-Za-z_.-]{{1,64}}",  # a namespace, anybody's: only to listen at a port that is in it
    "namespace": "ns-dhcp-vlan[1-9][0-9]{{0,3}}",
    "port": "(?:tap_(?:[0-9]{{1,9}}_eth[0-9]{{1,3}}|h[0-9a-f]{{8}})|(?:gw_vlan|dhcp_v)[1-9][0-9]{{0,3}})",
    "trunk": "(?!tap_|gw_vlan|dhcp_v){device}",  # a port of the bridge that is nobody's, and not used by the host
    "beyond": "(?!tap_|gw_vlan|dhcp_v){device}",  # where the other hosts are: see `flow_ways` and `require_beyond`
    "joined": "{trunks}",  # what may be made one: the bridge's uplinks when the host was prepared
    "outward": "(?!tap_|gw_vlan|dhcp_v){uplink}",  # to the internet: as set, else any device not named as ours are
    "forwarding": "(?:gw_vlan400|(?!tap_|gw_vlan|dhcp_v){uplink})",
    "chain": "CR-{installation}-(?:FORWARD|INPUT|POSTROUTING)",
    "group": "[1-9][0-9]{{9}}",
    "meter": "[1-9][0-9]{{2,9}}",  # of one NIC: see `judge.metered_device`
    "secret": "[0-9A-Za-z]{{8}}",  # the password of a screen
    "loopback": "127(?:[.][0-9]{{1,3}}){{3}}",
    "nic": "eth[0-9]{{1,3}}",
    "mac": "[0-9a-f]{{2}}(?::[0-9a-f]{{2}}){{5}}",
    "ip": "[0-9]{{1,3}}(?:[.][0-9]{{1,3}}){{3}}",
    "ip6": "[0-9a-f:]{{2,39}}",
    "internet": "{internet}",  # the subnet of VLAN 400
    "gateway": "[0-9]{{1,3}}(?:[.][0-9]{{1,3}}){{3}}/[0-9]{{1,2}}",  # an address in it, with its length
    "cidr": "[0-9]{{1,3}}(?:[.][0-9]{{1,3}}){{3}}/[0-9]{{1,2}}",
    "uuid": "[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}",
    "vm": "[A-Za-z][A-Za-z0-9_-]{{0,63}}",
    "host": "[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?",
    "file": "[A-Za-z0-9_][A-Za-z0-9._-]{{0,150}}",  # no path, never `..`, never hidden
    "disk": "(?:vm-(?:0|[1-9][0-9]{{0,8}})|manual-[A-Za-z0-9_-]{{1,80}})",  # the directory of one disk
    "removed": "removed-[0-9a-f]{{16}}",  # a base image that is about to go
    "seed": "seed-[0-9a-f]{{16}}[.]iso",  # what a guest reads at its first boot
    "image": "[A-Za-z0-9][A-Za-z0-9_-]{{0,120}}_img[.]qcow2",  # the disk of a VM, in the image folder
    "part": "[0-9a-f]{{16}}(?:-[0-9a-f]{{16}})?[.]part(?:[.][0-9a-f]{{16}}[.]part)?|from-[0-9a-f]{{16}}[.]part",
    "proof": "/run/cloudrepo-proof-[0-9a-f]{{12}}",
    "boot": "import base64, sys; open[(]sys[.]argv\\[1\\], 'xb'[)][.]write"
    "[(]base64[.]b64decode[(]sys[.]stdin[.]read[(][)][)][)]",
}

#: Acts that are not commands: their fields and what each may hold. A mode is written in octal.
PLAIN_ACTS = """
read      path=<store>/fences|<store>/<disk>/mark.json|<base>/base/<file>
read      path=/proc/stat|/proc/meminfo|/proc/sys/kernel/random/boot_id|/proc/sys/net/ipv4/ip_forward
read      path=/sys/class/net/gw_vlan400/address
read      path=/sys/fs/cgroup/cgroup.subtree_control|/sys/fs/cgroup/unified/cgroup.subtree_control
read      path=/proc/net/route
require   path=<base>/base/<file>
checksum  path=<store>/upload/<part> length=<number>
checksum  path=<base>/base/<file> length=0
measure   path=<base> size=16777216
files     paths=<above>|<base>/<file>|<base>/base/<file>|<store>/upload/<part>|/dev/kvm|/dev/net/tun* directory=
files     paths=<base>/base/<file>* directory=<base>
files     paths=* directory=<store>|<base>/base|<base>/.cloudrepo-<some>
machines  root=<run> pid_file=pid socket=qmp.sock
disks     root=<store> kept=overlay.qcow2
namespaces prefix=ns-dhcp-vlan 'words=ip -j -d address show'
processes names=qemu-system-x86_64|dnsmasq*
servers   root=<run> prefix=dhcp- files=mark|dnsmasq.conf|hosts* pid_file=pid
servers   root=<store> prefix=vm-|manual- files=mark.json* pid_file=pid
servers   root=<base>/.cloudrepo-<some> prefix=vm-|manual- files=mark.json* pid_file=pid
servers   root=/run prefix=cloudrepo- files=* pid_file=pid
servers   root=<base> prefix=.cloudrepo- files=* pid_file=pid

mkdir     path=<run>/vm-<id>    mode=0700 user=<user>
mkdir     path=<run>/dhcp-<vlan> mode=0755 user=
mkdir     path=<store>          mode=0755 user=
mkdir     path=<store>/upload   mode=0700 user=<account>
mkdir     path=<store>/<disk>   mode=0700 user=
mkdir     path=<base>/base      mode=0755 user=
mkdir     path=<proof>          mode=0700 user=<user>
write     path=<run>/vm-<id>/mark      text=:machine mode=0600 user= durable=no
write     path=<run>/vm-<id>/pid       text=:pid     mode=0644 user= durable=no
write     path=<run>/dhcp-<vlan>/mark  text=:server  mode=0600 user= durable=no
write     path=<run>/dhcp-<vlan>/hosts text=:hosts   mode=0644 user= durable=no
write     path=<run>/dhcp-<vlan>/dnsmasq.conf text=:dnsmasq mode=0644 user= durable=no
write     path=<store>/<disk>/mark.json text=:remembrance mode=0600 user= durable=yes|no
write     path=<base>/base/<file>.json  text=:record mode=0644 user= durable=yes
publish   draft=<store>/<disk>/disk.qcow2|<store>/<disk>/overlay.qcow2 path=<base>/<image> user=<user> mode=0600
publish   draft=<store>/<disk>/disk.qcow2|<base>/<image> path=<store>/<disk>/overlay.qcow2 user=<user> mode=0600
adopt     draft=<store>/upload/<part> path=<base>/base/<file> owner=root mode=0444 mtime_s=<number> sha256=<digest>
remove    path=<run>/vm-<id>|<run>/dhcp-<vlan> within=<run> tree=yes same_as=
remove    path=<store>/<disk> within=<store> tree=yes same_as=
remove    path=<store>/<disk>/disk.qcow2 within=<store> tree=no same_as=
remove    path=<base>/<image> within=<base> tree=no same_as=|<store>/<disk>/disk.qcow2
remove    path=<store>/upload/<part> within=<store>/upload tree=no same_as=
remove    path=<base>/base/<file>.json within=<base>/base tree=no same_as=
remove    path=<store>/<removed> within=<store> tree=no same_as=
remove    path=<proof> within=/run tree=yes same_as=
'remove if empty' path=<run>

stop      pid_file=<run>/vm-<id>/pid pid=<number> start=<number> token=<uuid> socket=<run>/vm-<id>/qmp.sock grace_s=<seconds> quit_s=<seconds>
stop      pid_file= pid=<number> start=<number> token=<uuid> socket=|<run>/vm-<id>/qmp.sock grace_s=<seconds> quit_s=<seconds>
stop      pid_file=|<run>/dhcp-<vlan>/pid pid=<number> start=<number> token=--conf-file=<run>/dhcp-<vlan>/dnsmasq.conf socket= grace_s=0 quit_s=<seconds>
confine   pid_file=<run>/vm-<id>/pid token=<uuid> group=cloudrepo-<installation>/vm-<id> 'limits=["cpu.max","<number> 100000"]|["memory.max","<number>"]|["pids.max","<number>"]*'
release   group=cloudrepo-<installation>/vm-<id>
signal    pid_file=<run>/vm-<id>/pid token=<uuid> signal=CONT
signal    pid_file=<run>/dhcp-<vlan>/pid token=--conf-file=<run>/dhcp-<vlan>/dnsmasq.conf signal=HUP
qmp       socket=<run>/vm-<id>/qmp.sock commands={qmp}* expect_uuid=<uuid> log=|<run>/vm-<id>/qemu.log

devices
listen    places=:places run=<token> questions=:questions tags=yes|no
inject    bridge=<bridge> 'frames=[<number>,"<frame>"]*'
emit      'frames=["","<device>","<experiment>"]|["","<device>","<tried>"]|["","<device>","<asked>"]*' 'packets=["192.0.2.1","<elsewhere>"]*'
heard     settle_s=<seconds> at_most_s=<seconds>
"""  # noqa: E501  a line is an act

#: What an emulator is told on its QMP socket: JSON, its keys in alphabetical order.
QMP = """
{"execute":"cont"}
{"arguments":{"password":"<secret>","protocol":"vnc"},"execute":"set_password"}
{"arguments":{"name":"nic-<nic>","up":true},"execute":"set_link"}
{"arguments":{"name":"nic-<nic>","up":false},"execute":"set_link"}
"""

#: Commands run as root. `< NAME` = what is on their standard input, a table below.
AS_ROOT = """
nproc
uname -r
id -u
id -Gn -- <user>
python3 --version
qemu-system-x86_64 --version
qemu-img --version
ip -V
ovs-vsctl --version
dnsmasq --version
iptables --version
df -B1 --output=size,avail -- <above>…
stat '--format=%u %U' -- <home>
date +%s.%N
sshd -T -C user=<account>,host=<ip>,addr=<ip>,laddr=127.0.0.1,lport=<number>
grep -rs --include=forwarding 1 /proc/sys/net/ipv4/conf
grep -rs --include=disable_ipv6 0 /proc/sys/net/ipv6/conf
grep -q '^ "disk": ' -- <store>/<disk>/mark.json

ip -j -d address show
ip -n <namespace> -j -d address show
ip -j -4 route show
ip -batch - < links
ip -n <namespace> -batch - < inside
nsenter --net=/run/netns/<namespace> -- dnsmasq --conf-file=<run>/dhcp-<vlan>/dnsmasq.conf
nsenter --net=/run/netns/<namespace> -- sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 net.ipv6.conf.all.disable_ipv6=1
sysctl -qew net/ipv6/conf/<wire>/disable_ipv6=1…
sysctl -qew net/ipv6/conf/<tap>/disable_ipv6=1…
sysctl -qew net/ipv4/conf/<forwarding>/forwarding=0…
sysctl -qw net/ipv4/conf/<forwarding>/forwarding=1…

iptables-save
iptables-restore --noflush --wait 10 < rules
ovs-vsctl --timeout=20 -f json -- --columns=name,ports,datapath_type,fail_mode,external_ids list Bridge -- --columns=_uuid,name,tag,trunks,vlan_mode,cvlans,other_config,external_ids list Port -- --columns=name,type,error,mac list Interface
ovs-vsctl --timeout=10 -f json -- --columns=name,ports,fail_mode list Bridge -- --columns=_uuid,name,tag,trunks,vlan_mode list Port -- --columns=name,ofport,type,error,statistics list Interface
ovs-appctl --timeout=10 ofproto/trace --names <bridge> in_port=<device> <frame>
ovs-appctl --timeout=10 fdb/show <bridge>
ovs-vsctl --timeout=20 {ports}
ovs-ofctl --timeout=20 -O OpenFlow13 --names --no-stats dump-flows <bridge>
ovs-ofctl --timeout=20 -O OpenFlow13 --names --no-stats dump-flows <bridge> metadata=<cookie>/0xffffffff00000000
ovs-ofctl --timeout=20 -O OpenFlow13 --bundle add-flows <bridge> - < flows
ovs-ofctl --timeout=20 -O OpenFlow13 dump-meters <bridge>
ovs-ofctl --timeout=20 -O OpenFlow13 meter-features <bridge>
ovs-ofctl --timeout=20 -O OpenFlow13 add-meter <bridge> meter=<meter>,burst,kbps,bands=type=drop,rate=<number>,burst_size=<number>
ovs-ofctl --timeout=20 -O OpenFlow13 mod-meter <bridge> meter=<meter>,burst,kbps,bands=type=drop,rate=<number>,burst_size=<number>
ovs-ofctl --timeout=20 -O OpenFlow13 del-meter <bridge> meter=<meter>

mv -f -T -- <base>/base/<file> <store>/<removed>
mv -f -T -- <store>/<removed> <base>/base/<file>
qemu-img create -q -f qcow2 -u -b <base>/base/<file> -F qcow2 <store>/<disk>/disk.qcow2 <number>
qemu-img create -q -f qcow2 -u -b <base>/base/<file> -F raw <store>/<disk>/disk.qcow2 <number>
"""  # noqa: E501  a line is a command

#: Commands run as the account that logs in, on what is that account's.
AS_ACCOUNT = """
cp --no-dereference --reflink=auto --sparse=auto -T -- <base>/<file> <store>/upload/<part>
prlimit --as=2147483648 --cpu=60 -- qemu-img info --output=json <store>/upload/<part>
prlimit --as=2147483648 --cpu=60 -- qemu-img info --output=json -f qcow2 <store>/upload/<part>
prlimit --as=2147483648 --cpu=60 -- qemu-img info --output=json -f raw <store>/upload/<part>
prlimit --as=2147483648 --cpu=60 -- qemu-img check --output=json -f qcow2 <store>/upload/<part>
"""

#: Commands run as an account of QEMU, which has no other rights.
AS_QEMU = """
tail -c <number> -- <run>/vm-<id>/qemu.log
python3 -c <boot> <proof>/disk < base64
python3 -c <boot> <run>/vm-<id>/<seed> < base64
qemu-system-x86_64 -nodefaults -no-user-config -display none -m 16 -accel kvm -cpu host -drive file=<proof>/disk,format=raw,if=ide -device isa-debug-exit,iobase=0xf4,iosize=1
qemu-system-x86_64 -nodefaults -no-user-config -display none -m 16 -accel tcg -drive file=<proof>/disk,format=raw,if=ide -device isa-debug-exit,iobase=0xf4,iosize=1
qemu-system-x86_64 {machine}
"""  # noqa: E501  a line is a command

#: One line each on the standard input of `ip -batch`: of the host itself …
LINKS = """
tuntap add dev <tap> mode tap user <user>
link set dev <tap> alias <mark>
link set dev <tap> addrgenmode none
link set dev <tap> arp off
link set dev <tap> up
link set dev <tap> group <group>
link delete dev <tap>
link delete group <group>
netns add <namespace>
netns delete <namespace>
link set dev <wire> netns <namespace>
address delete <cidr> dev gw_vlan400
address replace <gateway> dev gw_vlan400
link set dev <wire> alias <mark>
link set dev <wire> up
link set dev <trunk> up
link set dev <trunk> mtu 1500
"""
#: … and inside a namespace of ours.
INSIDE = """
link set dev lo alias <mark>
link set dev lo up
address delete <cidr> dev <wire>
address replace <cidr> dev <wire>
link set dev <wire> alias <mark>
link set dev <wire> up
"""

#: The commands of one transaction of `ovs-vsctl`, between `--`.
PORTS = """
set Bridge <bridge> fail_mode=secure 'external_ids:cloudrepo-<installation>="<mark>"'
remove Bridge <bridge> external_ids cloudrepo-<installation>
clear Bridge <bridge> fail_mode
--may-exist add-br <bridge>
set Bridge <bridge> datapath_type=system
set Bridge <bridge> datapath_type=netdev
--may-exist add-port <bridge> <joined>
--if-exists del-port <bridge> <port>
--if-exists del-port <port>
--may-exist add-port <bridge> <port>
set Port <port> tag=<vlan> vlan_mode=dot1q-tunnel other_config:qinq-ethtype=802.1q 'external_ids:cloudrepo="<mark>"'
set Port <port> tag=<vlan> 'external_ids:cloudrepo="<mark>"'
set Interface <wire> type=internal
set Interface <wire> type=internal 'mac="<mac>"'
clear Port <port> trunks vlan_mode cvlans
remove Port <port> other_config qinq-ethtype
"""

#: Lines for `iptables-restore`: chains of ours, and the jumps to them.
RULES = """
*filter
*nat
COMMIT
:<chain> - [0:0]
-X <chain>
-I FORWARD -m comment --comment <mark> -j <chain>
-I INPUT -m comment --comment <mark> -j <chain>
-I POSTROUTING -m comment --comment <mark> -j <chain>
-D FORWARD -m comment --comment <mark> -j <chain>
-D INPUT -m comment --comment <mark> -j <chain>
-D POSTROUTING -m comment --comment <mark> -j <chain>
-D FORWARD -j <chain>
-D INPUT -j <chain>
-D POSTROUTING -j <chain>
-A <chain> -i gw_vlan400 -m conntrack ! --ctstate NEW,SNAT -j DROP
-A <chain> -i gw_vlan400 -m conntrack ! --ctstate SNAT --ctstatus CONFIRMED -j DROP
-A <chain> -s <cidr> -d <cidr> -i gw_vlan400 -o <outward> -p udp -m udp --dport 53 -j ACCEPT
-A <chain> -s <cidr> -d <cidr> -i gw_vlan400 -o <outward> -p tcp -m tcp --dport 53 -j ACCEPT
-A <chain> -d <cidr> -i gw_vlan400 -j DROP
-A <chain> -s <cidr> -i gw_vlan400 -o <outward> -j ACCEPT
-A <chain> -i gw_vlan400 -j DROP
-A <chain> -i <outward> -o gw_vlan400 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A <chain> -o gw_vlan400 -j DROP
-A <chain> -i <outward> -j DROP
-A <chain> -d <cidr> -i gw_vlan400 -p icmp -j ACCEPT
-A <chain> -d <cidr> -i gw_vlan400 -p udp -m udp --dport 53 -j ACCEPT
-A <chain> -d <cidr> -i gw_vlan400 -p tcp -m tcp --dport 53 -j ACCEPT
-A <chain> -s <internet> -o <outward> -j MASQUERADE
"""

#: What a flow may match, field by field …
MATCH = """
metadata=<cookie>
in_port=<port>
in_port=<beyond>
dl_vlan=<vlan>
vlan_tci=0x1000/0x1000
arp
ip
ipv6
udp
icmp6
dl_src=<mac>
dl_dst=<mac>
dl_dst=<mac>/ff:ff:ff:ff:ff:f0
arp_sha=<mac>
arp_spa=<ip>
arp_tpa=<ip>
nw_src=<ip>
nw_dst=<ip>
ipv6_src=<ip6>
icmp_type=<number>
nd_target=<ip6>
nd_sll=<mac>
nd_tll=<mac>
tp_src=<number>
tp_dst=<number>
"""
#: … and what becomes of its frames.
ACTIONS = """
drop
NORMAL
pop_vlan
push_vlan:0x8100
set_field:<tagged>->vlan_vid
load:0x180c200000->NXM_OF_ETH_DST[4..47]
load:0x3435200000->NXM_OF_ETH_DST[4..47]
output:<port>
output:<beyond>
meter:<meter>
"""

#: Lines of a DHCP server's configuration.
DNSMASQ = """
# <mark>
port=0
no-hosts
no-resolv
no-ping
bind-interfaces
except-interface=lo
interface=<wire>
dhcp-authoritative
dhcp-range=<ip>,<ip>,<ip>,<number>s
dhcp-range=<ip>,static,<ip>,<number>s
dhcp-option=option:router
dhcp-option=option:router,<ip>
dhcp-option=option:dns-server
dhcp-option=option:dns-server,<ip>
dhcp-option=option:dns-server,<ip>,<ip>
dhcp-option=option:dns-server,<ip>,<ip>,<ip>
dhcp-hostsfile=<run>/dhcp-<vlan>/hosts
dhcp-leasefile=<run>/dhcp-<vlan>/leases
pid-file=<run>/dhcp-<vlan>/pid
log-facility=<run>/dhcp-<vlan>/log
user=nobody
group=nogroup
"""

#: Options of a machine, each as often as it comes. Those in `NEEDED` must be there.
MACHINE = """
-name guest=<vm>,debug-threads=on
-uuid <uuid>
-S
-nodefaults
-no-user-config
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-sandbox on,obsolete=deny,resourcecontrol=deny
-trace qemu_system_shutdown_request
-enable-kvm
-cpu host
-accel tcg
-m <number>
-smp <number>
-drive file=<base>/<image>,format=qcow2,if=virtio
-drive file=<run>/vm-<id>/<seed>,format=raw,if=virtio,readonly=on
-vga std
-vnc <loopback>:<number>
-vnc <ip>:<number>,password=on
-qmp unix:<run>/vm-<id>/qmp.sock,server=on,wait=off
-chardev socket,id=serial0,path=<run>/vm-<id>/serial.sock,server=on,wait=off,logfile=<run>/vm-<id>/serial.log
-serial chardev:serial0
-device virtio-serial-pci
-chardev socket,id=agent0,path=<run>/vm-<id>/agent.sock,server=on,wait=off
-device virtserialport,chardev=agent0,name=org.qemu.guest_agent.0
-netdev tap,id=<nic>,ifname=<tap>,script=no,downscript=no
-netdev tap,id=<nic>,ifname=<tap>,script=no,downscript=no,vnet_hdr=off
-device virtio-net-pci,id=nic-<nic>,netdev=<nic>,mac=<mac>,addr=0x<hex>,romfile=
-daemonize
-pidfile <run>/vm-<id>/pid
"""
NEEDED = ("-S", "-nodefaults", "-no-user-config", "-sandbox")

#: A DHCP server's reservations.
HOSTS = """
<mac>,<ip>
<mac>,<ip>,<host>
"""
