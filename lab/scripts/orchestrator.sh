#!/bin/sh
# Makes the orchestrator's room: orchestrator.sh IMAGES PLACE
#
# It sees the machine's files, with the lab's image folder IMAGES at the documented
# PLACE, which exists (the lab makes it, empty, where it is missing).
set -eu
images=$1 place=$2
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount --bind "$images" "$place"
hostname orchestrator
