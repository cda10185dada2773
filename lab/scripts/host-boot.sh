#!/bin/sh
# Boots a host of the lab. Runs as root in its fresh namespaces, once:
#
#     host-boot.sh FOLDER HOSTNAME DATAPATH
#
# FOLDER holds disk/ (all this host can write) and facts/ (what its kernel would
# say of it). DATAPATH is Open vSwitch's datapath type, netdev or system.
set -eu
folder=$1 hostname=$2 datapath=$3
trunk_card=eth1

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t tmpfs -o mode=755,nosuid,nodev run /run
mkdir -p /run/host /run/lock /run/openvswitch /run/sshd /run/netns /run/user
chmod 1777 /run/lock

# The folder may lie under one of the places covered below: keep it in reach.
mount --bind "$folder" /run/host

# Nor may the machine's list of packages get out of reach; it is true of the host too.
mkdir /run/dpkg
if [ -d /var/lib/dpkg ]; then mount --bind /var/lib/dpkg /run/dpkg; fi

# The machine's programs, read-only; everything that can be written is our own disk.
mount -o remount,bind,ro /
for place in etc home media mnt opt root srv tmp var; do
    [ -d "/$place" ] && mount --bind "/run/host/disk/$place" "/$place"
done
mount --bind /run/host/disk/usr-local /usr/local

# Devices: those of a server, with a terminal world of its own.
mkdir /run/dev
mount -t tmpfs -o mode=755,nosuid dev /run/dev
for device in null zero full random urandom tty kvm vhost-net; do
    if [ -e "/dev/$device" ]; then cp -a "/dev/$device" "/run/dev/$device"; fi
done
# What the machine lets its own people do with KVM is not what a worker does.
if [ -e /run/dev/kvm ]; then chmod 666 /run/dev/kvm; fi
mkdir /run/dev/net /run/dev/pts /run/dev/shm
mknod -m 666 /run/dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts /run/dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /run/dev/shm
ln -s pts/ptmx /run/dev/ptmx
ln -s /proc/self/fd /run/dev/fd
ln -s /proc/self/fd/0 /run/dev/stdin
ln -s /proc/self/fd/1 /run/dev/stdout
ln -s /proc/self/fd/2 /run/dev/stderr
mount --move /run/dev /dev
rmdir /run/dev

# The facts: sizes as stated when the lab went up, a boot id of this boot.
facts=/run/host/facts
mount --bind $facts/meminfo /proc/meminfo
mount --bind $facts/cpuinfo /proc/cpuinfo
mount --bind $facts/boot_id /proc/sys/kernel/random/boot_id
for list in online possible present; do
    mount --bind $facts/cpus /sys/devices/system/cpu/$list
done

hostname "$hostname"
echo 0 > /proc/sys/net/ipv4/ip_forward
ip -batch $facts/network

mount --bind /run/dpkg /var/lib/dpkg
mount -o remount,bind,ro /var/lib/dpkg
umount -l /run/dpkg /run/host
rmdir /run/dpkg /run/host

# Open vSwitch, as its own start script would start it. On the first boot the
# bridge and its uplink are made; later ones take what the database holds.
database=/etc/openvswitch/conf.db
fresh=no
if [ ! -s "$database" ]; then
    rm -f "$database"
    ovsdb-tool create "$database" /usr/share/openvswitch/vswitch.ovsschema
    fresh=yes
fi
ovsdb-server "$database" --remote=punix:/run/openvswitch/db.sock \
    --remote=db:Open_vSwitch,Open_vSwitch,manager_options \
    --pidfile --detach --log-file -vconsole:off
# One thread of each kind: a lab has many of these on few processors.
ovs-vsctl --no-wait -- init -- set Open_vSwitch . \
    external_ids:hostname="$hostname" external_ids:system-id="$hostname" \
    other_config:n-handler-threads=1 other_config:n-revalidator-threads=1
if [ $fresh = yes ]; then
    ovs-vsctl --no-wait -- add-br br-int -- set Bridge br-int datapath_type="$datapath" \
        -- add-port br-int $trunk_card
fi
ovs-vswitchd --pidfile --detach --log-file -vconsole:off
# A host is up when its bridges are, or when it is plain that they will not be.
ovs-vsctl --timeout=5 set Open_vSwitch . external_ids:lab-ready=yes || true

/usr/sbin/sshd -E /var/log/auth.log
# It goes into the background before it listens; when it does, it writes its number.
tries=500
while [ ! -s /run/sshd.pid ] && [ $tries -gt 0 ]; do
    sleep 0.02
    tries=$((tries - 1))
done
