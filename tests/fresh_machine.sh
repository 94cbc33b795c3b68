#!/bin/bash
# Does a clean checkout work on a machine that has nothing?  Makes a Debian 12 root, and in it, with its own mount and
# process namespaces, runs the targets given (default: demo test demo test) on a clone of what is committed.
#
#     tests/fresh_machine.sh [TARGET ...]
#
# Needs root, debootstrap, git, /dev/fuse, and the network to the package registries.  The machine's own settings for
# packages (sources, keys, certificates, variables) are copied in when it runs; nothing is left behind.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then targets=(demo test demo test); fi
release=bookworm

say() { printf '== %s\n' "$*"; }

if [ "${1-}" != --inside ]; then
    root=$(mktemp -d -t dkfs-fresh-XXXXXX)
    trap 'rm -rf --one-file-system "$root"' EXIT
    # Everything started inside ends with the namespace, and so do the mounts.
    unshare --mount --propagation private --pid --fork --kill-child "$0" --inside "$root" "${targets[@]}"
    exit
fi

root=$2
targets=("${@:3}")

timed() {
    local name=$1 start=$EPOCHSECONDS
    shift
    say "$name"
    "$@" || { say "$name: FAILED with status $? after $((EPOCHSECONDS - start)) s"; exit 1; }
    say "$name: $((EPOCHSECONDS - start)) s"
}

make_root() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $release" 2>/dev/null | head -n 1)
    debootstrap --variant=minbase --include=ca-certificates,git,make "$release" "$root" ${mirror:+"$mirror"} >"$root.log" ||
        { tail -n 5 "$root.log"; return 1; }
    rm -f "$root.log"
}

copy_settings() {
    local path
    for path in /etc/apt/{sources.list,sources.list.d,apt.conf.d,auth.conf.d,keyrings,preferences.d,trusted.gpg.d} \
        /etc/pip.conf /etc/xdg/pip /etc/ssl/certs /usr/local/share/ca-certificates /usr/share/keyrings \
        /etc/resolv.conf /etc/hosts; do
        rm -rf "${root:?}$path"
        if [ -e "$path" ]; then
            mkdir -p "$root$(dirname "$path")"
            cp -a "$(realpath "$path")" "$root$path"
        fi
    done
    if [ -d "$HOME/.config/pip" ]; then
        mkdir -p "$root$HOME/.config"
        cp -a "$HOME/.config/pip" "$root$HOME/.config/pip"
    fi
}

inside() {
    local -a settings
    mapfile -t settings < <(env | grep -E '^(PIP_|SSL_CERT_|[A-Za-z]+_(proxy|PROXY)=|(REQUESTS|CURL)_CA_BUNDLE=|GIT_SSL_CAINFO=)')
    chroot "$root" env -i "HOME=$HOME" TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "${settings[@]}" "$@" </dev/null
}

timed "Debian root" make_root
# As "/" is elsewhere: open to every user, and a mount, which unshare(1) makes private.
chmod 755 "$root"
mount --bind "$root" "$root"
copy_settings
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
git clone --quiet "file://$checkout" "$root/srv/dkfs"

timed "make setup" inside make -C /srv/dkfs setup
timed "make setup, with nothing to do" inside make -C /srv/dkfs setup
for target in "${targets[@]}"; do
    timed "make $target" inside make -C /srv/dkfs "$target"
done
say "passed on a fresh machine: ${targets[*]}"
