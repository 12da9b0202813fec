# Debian systems in a folder, for Pythons that this machine has not; sourced after .ci/lib.sh.
# shellcheck shell=bash

# chroot_make FOLDER DEBOOTSTRAP-ARGUMENT...: a system with /proc, a /dev/shm and terminals of its own, to which
# nothing else of this machine is mounted. `chroot_drop FOLDER` takes it away.
chroot_make() {
  local root=$1 suite=$2 mirror
  shift 2
  mirror=$(sed -n -E 's/^(deb|URIs:) *(\[[^]]*\] *)?(https?:[^ ]*).*/\3/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
  packages debootstrap debian-archive-keyring || return
  # forky's script is not in an older debootstrap: all suites are made as sid is.
  debootstrap --variant=minbase "$@" "$suite" "$root" "${mirror:?no Debian mirror}" \
    /usr/share/debootstrap/scripts/sid >"$root.log" 2>&1 || { tail -n 30 "$root.log"; return 1; }
  chmod 755 "$root" || return  # as another user, too, one may go into it
  mount -t proc proc "$root/proc" && mkdir -p "$root/dev/shm" && mount -t tmpfs tmpfs "$root/dev/shm" || return
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts" && ln -sf pts/ptmx "$root/dev/ptmx" || return
  # How this machine reaches its package index goes for the system in the folder as well.
  for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -f "$file" ]; then mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file"; fi
  done
  tree_copy "$root/sharedmem"
}

chroot_drop() {
  umount "$1/dev/pts" "$1/dev/shm" "$1/proc" 2>/dev/null
  rm -rf --one-file-system "$1"
}

# chroot_run FOLDER COMMAND: a line of shell in the tree's copy there, with System V segments of its own.
chroot_run() {
  unshare --ipc chroot "$1" /usr/bin/env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    LANG=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1 "${carried[@]}" \
    bash -c "cd /sharedmem && $2" </dev/null
}
carried=()
while IFS= read -r -d '' variable; do
  case $variable in PIP_*=* | *_proxy=* | *_PROXY=*) carried+=("$variable") ;; esac
done < <(env -0)
