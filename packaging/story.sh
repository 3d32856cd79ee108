#!/bin/sh
# SPDX-License-Identifier: MIT
# The Debian package's whole story on this machine, every command and every answer to be seen: installed, looked
# at, used, sabotaged, upgraded, removed, purged. It ends at the first thing that is not as it says.
#
#   packaging/story.sh [--yes] linxd_VERSION_all.deb
set -eu
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER=

usage() {
    cat <<'END'
usage: story.sh [--yes] linxd_VERSION_all.deb

On a machine with Debian 12 or 13 and systemd, as root, where linxd is not installed, this will
  1. install what the package depends on and recommends; that stays
  2. note every file, every user, and the network's whole configuration
  3. install the package, and see that nothing has started or changed
  4. make a network namespace called `story', declare what it should have, and have linxd keep it
  5. break it by hand, and see it healed and the culprit named
  6. upgrade the package (to itself, as a later version), unnoticed in the namespace
  7. remove it: what it made in the namespace stays, and it says so
  8. purge it, delete the namespace, and see that nothing is left
Nothing outside the namespace is changed but the files of the package. --yes does not ask first.
END
}

fail() {
    printf '\nNOT AS TOLD: %s\n' "$*"
    exit 1
}

chapter() { printf '\n=== %s\n\n' "$*"; }

# A command as one would type it, what it prints, and how it ends: `try' lets it end as it likes.
try() {
    printf '# %s\n' "$1"
    { eval "$1" && echo 0 >"$work/status" || echo $? >"$work/status"; } 2>&1 | tee "$work/said"
    status=$(cat "$work/status")
}
run() {
    try "$1"
    [ "$status" = 0 ] || fail "\`$1' fails with $status"
}
ends() {
    try "$2"
    [ "$status" = "$1" ] || fail "\`$2' ends with $status, not with $1"
    printf '(exit status %s)\n' "$status"
}

# The same for one that has to print, or not to print, something.
shows() {
    run "$2"
    grep -q -e "$1" "$work/said" || fail "\`$2' does not show \`$1'"
}
lacks() {
    run "$2"
    ! grep -q -e "$1" "$work/said" || fail "\`$2' shows \`$1'"
}
silent() {
    try "$1"
    [ ! -s "$work/said" ] || fail "\`$1' prints something"
}

# The same for what goes on by itself: looked at again for a minute at most, shown once.
soon() {
    tries=0
    until eval "$2" 2>&1 | grep -q -e "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "\`$2' does not come to show \`$1'"
        sleep 0.2
    done
    shows "$1" "$2"
}

# All files but those that a machine writes by itself, and apt's and dpkg's books; with what they are and mean.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /root \
        -o -path /home -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg \
        -o -path /var/lib/systemd -o -path /var/lib/private -o -name __pycache__ \) -prune -o -print | sort
    find /run -xdev \( -path /run/systemd -o -path /run/log -o -path /run/udev -o -path /run/user \
        -o -path /run/credentials -o -path /run/netns -o -path /run/lock -o -path /run/dbus \) -prune \
        -o -name '*linx*' -print | sort
    # The backups of /etc/passwd and its like are of one change before.
    find /etc -xdev -type f ! -name '*-' -exec sha256sum {} + | sort -k 2
}
network() {
    for what in link address route '-6 route' rule '-6 rule'; do
        # shellcheck disable=SC2086
        ip -o $what show | sed -E 's/ (valid_lft|preferred_lft|expires) [0-9]+sec//g'
    done
    nft list ruleset
    sysctl -a -r '^net[.]' 2>/dev/null | grep -v 'tcp_mem\|udp_mem\|_avg\|count\|uuid\|nf_conntrack'
}
note() {
    files >"$work/$1.files"
    getent passwd >"$work/$1.users"
    getent group >>"$work/$1.users"
    network >"$work/$1.network"
}
same() {
    diff "$work/$2.$1" "$work/$3.$1" || fail "the $1 differ from what they were before"
}

cleanup() {
    status=$?
    trap - EXIT
    [ -z "$monitor" ] || kill "$monitor" 2>/dev/null || true
    if [ "$status" != 0 ] && [ -n "$begun" ]; then
        systemctl stop linx-reconcile@story.service 2>/dev/null || true
        ip netns delete story 2>/dev/null || true
        echo "story.sh: ended early; \`apt-get purge linxd' takes away what is left"
    fi
    rm -rf "$work"
    exit "$status"
}

asks=yes
[ "${1:-}" != --yes ] || { asks= && shift; }
[ $# = 1 ] || { usage && exit 2; }
package=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "story.sh: root alone can install packages" >&2 && exit 2; }
[ -d /run/systemd/system ] || { echo "story.sh: this machine does not run systemd" >&2 && exit 2; }
[ ! -e /run/netns/story ] || { echo "story.sh: there is a namespace called story already" >&2 && exit 2; }
[ ! -e /usr/bin/linxctl ] || { echo "story.sh: linxd is installed already" >&2 && exit 2; }
if [ -n "$asks" ]; then
    usage | sed 1,2d
    printf '\nEnter goes on, Ctrl-C does not. '
    read -r _
fi
monitor=''
begun=''
work=$(mktemp -d)
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"
printf 'quiet "2"; Dpkg::Use-Pty "0";\n' >"$work/apt.conf"
export APT_CONFIG="$work/apt.conf"

chapter 'What it depends on'
run "dpkg-deb --field $package Package Version Depends Recommends"
wanted="$(dpkg-deb --field "$package" Depends), $(dpkg-deb --field "$package" Recommends)"
run "apt-get satisfy --yes '$wanted'"
begun=yes
note before

chapter 'Installed: nothing has started, and nothing has changed'
run "apt-get install --yes $package"
note installed
same network before installed
shows 'linx-reconcile@.service *disabled' "systemctl list-unit-files --no-legend 'linx*'"
silent "find /etc/systemd -name '*linx*'"
silent "systemctl list-units --all --no-legend --plain 'linx*'"
silent 'pgrep -a linxd'
shows 'linxd' 'getent passwd linxd'
shows 'SCOPE' 'linxctl list'

chapter 'What it brings'
shows /usr/bin/linxctl "dpkg -L linxd | grep -v '/python3/\|/doc/'"
silent 'dpkg --verify linxd'
shows linxd.toml.5 'ls /usr/share/man/man*/linx*'

chapter 'A scope: declared, looked at, started'
run 'ip netns add story'
cat >/etc/linxd/netns/story.toml <<'END'
[link.lo]
addresses = ["192.0.2.1/32"]

[[route]]
to = "198.51.100.0/24"
dev = "lo"

[netfilter]
ruleset = "table inet guard { chain input { type filter hook input priority 0; tcp dport 22 accept; }; }"

[sysctl]
"net.ipv4.ip_forward" = 1
END
run 'cat /etc/linxd/netns/story.toml'
shows 'story: fine' 'linxctl check'
ends 1 'linxctl diff story'
run 'systemctl enable --now linx-reconcile@story.service'
shows 'converged' 'linxctl status story'
run 'linxctl diff story'
shows 192.0.2.1/32 'ip -n story -br address show dev lo'
shows 'tcp dport 22 accept' 'ip netns exec story nft list ruleset'
# It runs as a user of its own.
# shellcheck disable=SC2016
shows '^linxd .*linxd' 'ps -o user:8,args -p "$(systemctl show -P MainPID linx-reconcile@story.service)"'
network >"$work/running.network"
same network before running

chapter 'Introspected'
soon 'org.linxd1.netns.story' "busctl list --no-legend | grep linxd1"
shows 'Reconcile' 'busctl introspect org.linxd1.netns.story /org/linxd1/scope/story org.linxd1.Scope'
shows '"converged"' 'busctl get-property org.linxd1.netns.story /org/linxd1/scope/story org.linxd1.Scope State'
run 'busctl call org.linxd1.netns.story /org/linxd1/scope/story org.linxd1.Scope Reconcile'
# What others could not read from the kernel is root's to ask for.
ends 1 'setpriv --reuid nobody --regid nogroup --clear-groups \
    busctl call org.linxd1.netns.story /org/linxd1/scope/story org.linxd1.Scope Describe'

chapter 'Sabotaged'
run 'ip -n story address delete 192.0.2.1/32 dev lo'
soon 'restored address 192.0.2.1/32' 'linxctl log story'
run 'ip netns exec story nft delete table inet guard'
soon 'restored table inet guard' 'linxctl log story'
run 'ip netns exec story sysctl -w net.ipv4.ip_forward=0'
soon 'restored sysctl net.ipv4.ip_forward' 'linxctl log story'
run 'linxctl diff story'
shows '198.51.100.0/24' 'ip -n story route'
chapter 'What the journal has of it'
# The kernel itself names nft; of ip, which ends at once, a name is caught nearly always.
shows 'deleted by nft\[' 'journalctl -u linx-reconcile@story.service -o cat'
shows 'LINX_OP=' 'journalctl -u linx-reconcile@story.service -o verbose LINX_TRIGGER=event | grep LINX_'

chapter 'A file that does not load changes nothing'
run "echo 'addresses = 7' >>/etc/linxd/netns/story.toml"
ends 1 'systemctl reload linx-reconcile@story.service'
run 'systemctl is-active linx-reconcile@story.service'
run "sed -i '\$d' /etc/linxd/netns/story.toml"
run 'systemctl reload linx-reconcile@story.service'

chapter 'Upgraded: what runs is the new version, and the namespace has heard nothing'
run "dpkg-deb -R $package $work/later"
run "sed -i 's/^Version: .*/&+story/' $work/later/DEBIAN/control"
run "dpkg-deb --root-owner-group -b $work/later $work/linxd_later.deb"
before=$(systemctl show -P MainPID linx-reconcile@story.service)
printf '# ip -n story -o monitor link address route >heard &\n'
ip -n story -o monitor link address route >"$work/heard" &
monitor=$!
number=1
until [ -s "$work/heard" ]; do
    # Something of nobody's, until the monitor has begun to listen.
    number=$((number + 1))
    [ "$number" -lt 250 ] || fail '`ip monitor'\'' hears nothing'
    ip -n story address add "203.0.113.$number/32" dev lo
    sleep 0.1
done
ip -n story address add 203.0.113.254/32 dev lo
soon 'local 203[.]0[.]113[.]254' "tail -n 2 $work/heard"
lines=$(wc -l <"$work/heard")
run "apt-get install --yes $work/linxd_later.deb"
shows '+story' "dpkg-query -W linxd"
after=$(systemctl show -P MainPID linx-reconcile@story.service)
printf 'the process was %s, and is %s now\n' "$before" "$after"
case $after in 0 | "$before") fail 'no new process' ;; esac
run 'linxctl diff story'
run 'ip -n story address add 203.0.113.255/32 dev lo'
soon 'local 203[.]0[.]113[.]255' "tail -n +$((lines + 1)) $work/heard"
! tail -n +$((lines + 1)) "$work/heard" | grep -v '203[.]0[.]113[.]255' || fail 'the monitor has heard something'
kill "$monitor" && monitor=
ends 3 'systemctl is-active linxd.service'

chapter 'Removed: what was made stays, and how to release it is told'
shows 'linxctl release SCOPE' 'apt-get remove --yes linxd'
silent 'pgrep -a linxd'
shows 192.0.2.1/32 'ip -n story -br address show dev lo'
shows 'tcp dport 22 accept' 'ip netns exec story nft list ruleset'
shows story.toml 'ls /etc/linxd/netns'

chapter 'Installed again: what it owns is still known, and can be released'
run "apt-get install --yes $package"
shows 'released' 'linxctl release story'
lacks 192.0.2.1 'ip -n story -br address show dev lo'
silent 'ip netns exec story nft list ruleset'

chapter 'Purged: nothing is left'
run 'apt-get purge --yes linxd'
run 'ip netns delete story'
run 'systemctl reset-failed'
silent "systemctl list-units --all --no-legend --plain 'linx*'"
note after
for what in files users network; do
    printf 'diff before after: %s\n' "$what"
    same "$what" before after
done
printf '\nAll as told.\n'
