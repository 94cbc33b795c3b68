#!/bin/bash
# The main job of dkfs, shown on real programs; `make demo` runs it.  It stops at the first thing that is not as claimed,
# with a status other than 0, and leaves nothing behind.
set -euo pipefail

work=$(mktemp -d -t dkfs-demo-XXXXXX)
state=$work/state mnt=$work/mnt
export DKFS_STORE=$work/store DKFS_METRICS_ADDR=""
export GIT_AUTHOR_NAME=demo GIT_AUTHOR_EMAIL=demo@example.com GIT_COMMITTER_NAME=demo GIT_COMMITTER_EMAIL=demo@example.com
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
workers=()

# ---- telling and checking

chapter() { printf '\n%s\n%s\n' "$*" "${*//?/-}"; }
say() { printf '  %s\n' "$*"; }
fail() { printf '\nNOT AS CLAIMED: %s\n' "$*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1: $2, expected $3"; say "ok  $1: $2"; }
at_least() { [ "$2" -ge "$3" ] || fail "$1: $2, expected $3 or more"; say "ok  $1: $2 (at least $3)"; }
show() { sed 's/^/      /'; }
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

clean_up() {
    local status=$?
    trap - EXIT
    exec 3<&- 4>&- 2>/dev/null || true
    stop_workers
    if mounted; then dkfs umount "$mnt" || umount --lazy "$mnt"; fi
    if mountpoint -q "$state" 2>/dev/null; then umount --lazy "$state"; fi
    rm -rf --one-file-system "$work"
    exit "$status"
}

# A dead mount is no mount point for mountpoint(1), so look it up.
mounted() { grep -qF " $mnt " /proc/self/mountinfo; }

stop_workers() {
    local pid
    for pid in "${workers[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
    workers=()
}

status_of() { dkfs status --json | python3 -c 'import json, sys; print(json.loads(sys.stdin.readlines()[-1])[sys.argv[1]])' "$1"; }

# Names, types, modes, owners, times to the nanosecond, links, extended attributes and contents: all in one number.
fingerprint() {
    tar --create --sort=name --format=posix --pax-option=delete=atime,delete=ctime,exthdr.name=%d/%f --xattrs --acls --sparse \
        --warning=no-file-ignored --directory "$1" . | sha256sum | cut -c 1-16
}

sql() { sqlite3 -batch -bail "$@"; }

trap clean_up EXIT
mkdir "$state" "$mnt"

# ---- 1

chapter "1  Programs work on the mount as on any directory"

dkfs mount "$state" "$mnt" --store "$DKFS_STORE"
say "$state is mounted at $mnt"

start=$(now_ms)
sql "$mnt/shop.db" 'CREATE TABLE sales (number INTEGER PRIMARY KEY, what TEXT)'
for number in {1..200}; do echo "INSERT INTO sales VALUES ($number, 'sale $number');"; done | sql "$mnt/shop.db"
same "sqlite3: sales after 200 transactions ($(($(now_ms) - start)) ms)" "$(sql "$mnt/shop.db" 'SELECT count(*) FROM sales')" 200

for try in 1 2 3; do # as editors save: a temporary file, renamed over the old one
    printf 'port = 80\nworkers = %s\n' "$try" >"$mnt/.app.conf.tmp"
    mv "$mnt/.app.conf.tmp" "$mnt/app.conf"
done
same "editor: app.conf saved 3 times" "$(tail -n 1 "$mnt/app.conf")" "workers = 3"

library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
tar --create --file "$work/source.tar" --directory "$library" --exclude=__pycache__ --exclude='config-*' --exclude='*-packages' .
files=$(tar --list --file "$work/source.tar" | grep -vc '/$')
start=$(now_ms)
mkdir "$mnt/source"
tar --extract --file "$work/source.tar" --directory "$mnt/source"
say "tar: $files files, $(($(stat -c %s "$work/source.tar") >> 20)) MiB unpacked in $(($(now_ms) - start)) ms"
tar --compare --file "$work/source.tar" --directory "$mnt/source" || fail "the unpacked tree differs from the archive"
say "ok  tar --compare: no difference"

start=$(now_ms)
git init --quiet --initial-branch=main "$mnt/project"
git -C "$mnt/project" config core.fsync all # dkfs promises what was fsynced, and git does not fsync all by default
cp -r "$mnt/source/json" "$mnt/source/email" "$mnt/project"
git -C "$mnt/project" add .
git -C "$mnt/project" commit --quiet --message "first"
git clone --quiet --no-local "$mnt/project" "$mnt/clone"
same "git: init, add, commit, clone ($(($(now_ms) - start)) ms), files" "$(git -C "$mnt/clone" ls-files | wc -l)" "$(git -C "$mnt/project" ls-files | wc -l)"

# ---- 2

chapter "2  Everything has a history"

echo "first note" >"$mnt/notes.txt"
setfattr --name user.origin --value demo "$mnt/notes.txt"
dkfs tag good
say "versions so far: $(status_of last); this one has the name good"
dkfs history --store "$DKFS_STORE" app.conf | show
good=$(fingerprint "$mnt")

# ---- 3

chapter "3  An accident"

exec 3<"$mnt/notes.txt" # held open, all the way through
coproc shell { exec sqlite3 -batch "$mnt/shop.db"; }
workers+=("$shell_PID")
ask() { echo "$1" >&"${shell[1]}"; read -r -t 10 answer <&"${shell[0]}" || fail "sqlite3 does not answer"; echo "$answer"; }
same "a running sqlite3 counts the sales" "$(ask 'SELECT count(*) FROM sales;')" 200

sql "$mnt/shop.db" 'DELETE FROM sales WHERE number > 10'
rm -rf "$mnt/source/email" "$mnt/clone"
chmod 0 "$mnt/app.conf"
mv "$mnt/source/json" "$mnt/lost"
echo "second note" >>"$mnt/notes.txt"
bad=$(fingerprint "$mnt")
same "the running sqlite3 now counts" "$(ask 'SELECT count(*) FROM sales;')" 10
dkfs diff good..latest >"$work/diff"
say "dkfs diff good..latest: $(wc -l <"$work/diff") lines, the first are"
head -n 5 "$work/diff" | show

# ---- 4

chapter "4  The past is a directory"

past=$mnt/.dkfs/tags/good
same "sales in .dkfs/tags/good/shop.db" "$(sql "file:$past/shop.db?immutable=1" 'SELECT count(*) FROM sales')" 200
tar --compare --file "$work/source.tar" --directory "$past/source" || fail ".dkfs/tags/good/source differs from the archive"
say "ok  the source tree in .dkfs/tags/good: no difference to the archive"
same "fingerprint of all of .dkfs/tags/good" "$(fingerprint "$past")" "$good"
if touch "$past/new" 2>/dev/null; then fail "the past can be written"; fi
same "what find sees of .dkfs" "$(find "$mnt" -name .dkfs | wc -l)" 0
dkfs restore good:source/email --target "$work/restored" | show
restored=$(find "$work/restored" -type f | wc -l)
same "dkfs restore good:source/email, files" "$restored" "$(find "$past/source/email" -type f | wc -l)"

# ---- 5

chapter "5  Going back, under running programs"

start=$(now_ms)
dkfs rollback good >"$work/rollback"
say "dkfs rollback good: $(wc -l <"$work/rollback") lines, $(($(now_ms) - start)) ms"
same "fingerprint of the mount" "$(fingerprint "$mnt")" "$good"
same "the same sqlite3, still running, counts" "$(ask 'SELECT count(*) FROM sales;')" 200
same "the file that was open all the time reads" "$(cat <&3)" "first note"
dkfs undo >/dev/null
same "after dkfs undo, the fingerprint is that of the accident" "$(fingerprint "$mnt")" "$bad"
dkfs redo >/dev/null
same "after dkfs redo, it is the good one again" "$(fingerprint "$mnt")" "$good"
exec 3<&-
stop_workers

# ---- 6

chapter "6  The daemon is killed while programs write, and the disk is lost"

sell() { # one transaction after the other; a number is acknowledged when its COMMIT has returned
    local number=1000
    # EXTRA: a commit is the removal of the journal, and only EXTRA makes sqlite fsync the directory after it.
    while sql "$mnt/shop.db" "PRAGMA synchronous=EXTRA; INSERT INTO sales VALUES ($number, 'sale');" 2>/dev/null; do
        echo "$number" >>"$work/sold"
        number=$((number + 1))
    done
}
commit() {
    local number=0
    while number=$((number + 1)) && echo "$number" 2>/dev/null >"$mnt/project/number" &&
        git -C "$mnt/project" add number 2>/dev/null && git -C "$mnt/project" commit --quiet --message "$number" 2>/dev/null; do
        git -C "$mnt/project" rev-parse HEAD 2>/dev/null >>"$work/committed" || true
    done
}
touch "$work/sold" "$work/committed"
sell & workers+=($!)
commit & workers+=($!)
for _ in {1..600}; do
    if [ "$(wc -l <"$work/sold")" -ge 50 ] && [ "$(wc -l <"$work/committed")" -ge 10 ]; then break; fi
    sleep 0.1
done
daemon=$(status_of pid)
kill -9 "$daemon"
stop_workers
sold=$(wc -l <"$work/sold") committed=$(wc -l <"$work/committed")
at_least "transactions that were acknowledged" "$sold" 50
at_least "commits that were acknowledged" "$committed" 10
umount --lazy "$mnt"
rm -rf "$state"
mkdir "$state"
say "killed -9: process $daemon.  Removed: all of $state"

# ---- 7

chapter "7  dkfs run brings it all back"

cat >"$work/application" <<'END'
set -eu
cd "$1"
sqlite3 -batch shop.db 'PRAGMA integrity_check' >"$2/integrity"
sqlite3 -batch shop.db 'SELECT number FROM sales WHERE number >= 1000 ORDER BY number' >"$2/sold.after"
git -C project fsck --full --strict >"$2/fsck" 2>&1 || echo "git fsck: status $?" >>"$2/fsck"
while read -r id; do git -C project cat-file -e "$id" || echo "$id" >>"$2/missing"; done <"$2/committed"
tar --compare --file "$2/source.tar" --directory source >"$2/compare" 2>&1 || true
echo "after the loss" >>notes.txt
exit 7
END
touch "$work/missing"
start=$(now_ms)
status=0
dkfs run --state-dir "$state" --store "$DKFS_STORE" -- sh "$work/application" "$state" "$work" || status=$?
say "replay, mount, application, unmount: $(($(now_ms) - start)) ms"
same "exit status, which is the application's" "$status" 7
same "PRAGMA integrity_check" "$(cat "$work/integrity")" ok
same "acknowledged transactions that are missing" "$(comm -23 <(sort "$work/sold") <(sort "$work/sold.after") | wc -l)" 0
same "git fsck: complaints" "$(grep -vc '^dangling\|^notice' "$work/fsck" || true)" 0
same "acknowledged commits that are missing" "$(wc -l <"$work/missing")" 0
same "differences between the source tree and its archive" "$(wc -l <"$work/compare")" 0
same "the last line of notes.txt, in the directory itself" "$(tail -n 1 "$state/notes.txt")" "after the loss"
dkfs restore good:shop.db --target "$work/again" | show
same "sales in it" "$(find "$work/again" -name shop.db -exec sqlite3 -batch {} 'SELECT count(*) FROM sales' \;)" 200

printf '\nAll as claimed.  State: %s MiB; the history of all its versions: %s MiB.\n' \
    "$(du -sm "$state" | cut -f 1)" "$(du -sm "$DKFS_STORE" | cut -f 1)"
