# One host's overlays, each with its mark. A hard link never replaces a file, so a name that is taken is refused.
set -euo pipefail
disk() { # disk ID NAME
    local folder=$IMAGES/.floor/vm-$1
    mkdir -p "$folder"
    printf '%s\n' "$MARK/$1/disk" >"$folder/mark"
    qemu-img create -q -f qcow2 -b "$BASE" -F qcow2 "$folder/disk.qcow2" 1073741824
    chown "$ACCOUNT" "$folder/disk.qcow2"
    chmod 0600 "$folder/disk.qcow2"
    ln -T "$folder/disk.qcow2" "$IMAGES/$2_img.qcow2"
    rm "$folder/disk.qcow2"
}
while read -r id name _; do disk "$id" "$name" & done <<<"$GUESTS"
for job in $(jobs -p); do wait "$job"; done
