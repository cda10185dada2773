#!/bin/sh
# `worker add --bootstrap` on a bare Debian, with a real installation of packages, and killed in the midst of one.
#
#   sudo bench/bootstrap-for-real.sh FOLDER        some 2 minutes and 1 GB in FOLDER, which may be removed afterwards
#
# FOLDER gets a Debian without Open vSwitch and QEMU (debootstrap) and the packages as files. The rest has no network:
# the program that is sent to hosts runs in namespaces of its own, which end with this script, and so do its daemons.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1"
places='openvswitch-switch qemu-system-x86 qemu-utils iproute2 dnsmasq-base iptables util-linux'

if ! [ -e repo/Packages ]; then
    apt-get download debootstrap && dpkg-deb -x debootstrap_*.deb tool
    DEBOOTSTRAP_DIR=$PWD/tool/usr/share/debootstrap sh tool/usr/sbin/debootstrap --variant=minbase \
        --include=python3,sudo,iproute2,kmod bookworm "$PWD/bare" http://deb.debian.org/debian
    cp /etc/resolv.conf bare/etc/resolv.conf
    unshare --mount sh -euc 'mount -t proc proc bare/proc; chroot bare apt-get -q update
        chroot bare apt-get -qy --download-only --no-install-recommends install "$@"' sh $places
    mkdir -p repo && mv bare/var/cache/apt/archives/*.deb repo/
    for deb in repo/*.deb; do
        dpkg-deb -f "$deb"
        echo "Filename: ./${deb##*/}"
        echo "Size: $(stat -c %s "$deb")"
        echo "SHA256: $(sha256sum "$deb" | cut -d' ' -f1)"
        echo
    done > repo/Packages.new
    mv repo/Packages.new repo/Packages
    echo 'deb [trusted=yes] file:/repo ./' > bare/etc/apt/sources.list
    rm bare/etc/resolv.conf
fi

PYTHONPATH=$here "$here/.venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path
from cloudrepo.host.programs import text
from control.workers import PROGRAMS

asked = {"account": "ubuntu", "public_key": "ssh-ed25519 AAAA try", "user": "cloudvm", "is_root_wanted": True,
         "base_dir": "~/vm_images", "bridge": "br-int", "uplink": "eth1", "datapath": "", "packages": PROGRAMS}
Path("bootstrap.py").write_text(f"{text('bootstrap')}\n\nsys.exit(main({json.dumps(asked)!r}))\n")
PYTHON

rm -rf host && cp -a bare host && cp -a repo host/repo && cp bootstrap.py host/
exec unshare --mount --net --uts --ipc --pid --fork --kill-child sh -euc '
mount --make-rprivate /
mount -t proc proc /proc
mount --bind host host && cd host
mount -t proc proc proc; mount -t sysfs sys sys; mount --rbind /dev dev; mount -t tmpfs run run
ip link set lo up && ip link add eth1 type veth peer name far
chroot . /usr/bin/python3 -I bootstrap.py > first 2>&1 &
until grep -qs "status unpacked qemu-utils" var/log/dpkg.log; do sleep 0.05; done
for process in /proc/[0-9]*; do # all but this shell, which is the first
    [ "$process" = /proc/1 ] || kill -9 "${process##*/}" 2> /dev/null || true
done
echo "killed while dpkg was at work; it said: $(cat first)"
chroot . /usr/bin/python3 -I bootstrap.py
chroot . /usr/bin/python3 -I bootstrap.py
chroot . sh -c "dpkg --audit; ovs-vsctl show; qemu-img --version; dnsmasq --version | head -1; id ubuntu; id cloudvm"'
