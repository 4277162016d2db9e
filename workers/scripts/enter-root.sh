#!/bin/sh
# enter-root.sh ROOT SCRATCH USER CAPABILITIES COMMAND...: runs COMMAND as USER in a throw-away overlay
# of ROOT, as a child of PID 1 of the namespaces that unshare(1) has made around us.
#
# Nothing of this machine's files is left inside: the old root is unmounted. PID 1 keeps only the
# capabilities that package managers need, and CAPABILITIES (such as ,+sys_chroot). The overlay lies one
# level below the namespace's root and is entered by chroot, because the kernel gives no user namespace
# to a process in a chroot: with one, everybody inside would have all capabilities back.
set -eu
root=$1 scratch=$2 user=$3 capabilities=$4
shift 4
base=$scratch/base new=$scratch/base/root
mkdir -p "$scratch/upper" "$scratch/work" "$base"
mount -t tmpfs -o nosuid,nodev,mode=755,size=64k base "$base"
mkdir "$new"
# Whoever cleans up knows our processes by the name of `upper` in their mounts, which they cannot change.
layers=lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work
# volatile: nothing of a throw-away directory needs to reach the disk.
mount -t overlay overlay -o "$layers,volatile" "$new" 2>/dev/null ||
    mount -t overlay overlay -o "$layers" "$new"

mount -t tmpfs -o nosuid,mode=755,size=1m dev "$new/dev"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    name=${node%%:*} numbers=${node#*:}
    mknod -m 666 "$new/dev/$name" c "${numbers%:*}" "${numbers#*:}"
done
mkdir "$new/dev/pts" "$new/dev/shm"
mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$new/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777,size=1g shm "$new/dev/shm"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${stream%:*}" "$new/dev/${stream#*:}"
done

mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
for path in sys sysrq-trigger irq bus fs; do
    [ ! -e "$new/proc/$path" ] || {
        mount --bind "$new/proc/$path" "$new/proc/$path"
        mount -o remount,bind,ro,nosuid,nodev,noexec "$new/proc/$path"
    }
done
for path in kcore keys kmsg timer_list; do
    [ ! -e "$new/proc/$path" ] || mount --bind "$new/dev/null" "$new/proc/$path"
done

hostname buildpackages
cp -L /etc/resolv.conf "$new/etc/resolv.conf" 2>/dev/null || true
{ cat /etc/hosts; echo 127.0.0.1 buildpackages; } >"$new/etc/hosts"
mkdir -p "$new/.old"
# chroot(8) is called from the new root, and must find itself and its libraries.
for name in bin sbin lib lib64 usr; do ln -s "root/$name" "$base/$name"; done
mount -o remount,ro "$base"
echo 500 >/proc/self/oom_score_adj
cd "$base"
pivot_root . root/.old
cd /root

# The child's exit ends PID 1, and that ends whatever else is in the namespace.
# shellcheck disable=SC2016
exec chroot . /bin/sh -c 'umount -l /.old && rmdir /.old && exec "$@"' sh \
    setpriv --inh-caps=-all \
    --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+setfcap,+audit_write"$capabilities" \
    /bin/sh -c 'exec 3<&0 </dev/null
        user=$1
        shift
        setpriv --reuid="$user" --regid="$user" --init-groups --inh-caps=-all "$@" <&3 3<&- &
        exec 3<&-
        wait "$!"' init "$user" "$@"
