#!/bin/sh
# libvirtd.sh DIRECTORY: runs libvirtd, as PID 1's only child, in mount and PID namespaces that unshare(1) has
# made around us: it sees DIRECTORY in place of the machine's own libvirt, and nothing of it outlives PID 1.
set -eu
directory=$1
for place in /etc/libvirt /var/lib/libvirt /run/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p "$directory$place" "$place"
    mount --bind "$directory$place" "$place"
done
# Debian's qemu driver does not start without this user, though it is told to use root.
for file in passwd group; do
    cp "/etc/$file" "$directory/etc/$file"
done
grep -q ^libvirt-qemu: /etc/passwd || echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$directory/etc/passwd"
grep -q ^libvirt-qemu: /etc/group || echo 'libvirt-qemu:x:64055:' >>"$directory/etc/group"
for file in passwd group; do
    mount --bind "$directory/etc/$file" "/etc/$file"
done
# Not PID 1 itself: it does not collect the processes that its machines leave behind.
libvirtd --config "$directory/etc/libvirt/libvirtd.conf" --pid-file "$directory/run/libvirt/libvirtd.pid" &
wait "$!"
