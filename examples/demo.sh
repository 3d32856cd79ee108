#!/bin/bash
# SPDX-License-Identifier: MIT
# A network namespace converges on a file, is sabotaged in every way that comes to mind, and heals; linxd says who did it.
# Needs root. Touches nothing but two namespaces that it makes, and removes them even on Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-/usr/bin/python3}
NS=lx-demo-$$
PEER=$NS-peer
DIR=$(mktemp -d)
LOG=$DIR/log
DAEMON=
MOST_STEPS_WAIT=3 # seconds for which a step waits before it calls it not healed

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' off=$'\e[0m'
else
  bold='' dim='' red='' green='' off=''
fi

clean_up() {
  trap - EXIT INT TERM
  if [[ -n $DAEMON ]] && kill -TERM "$DAEMON" 2>/dev/null; then wait "$DAEMON" 2>/dev/null || true; fi
  ip netns del "$NS" 2>/dev/null || true
  ip netns del "$PEER" 2>/dev/null || true
  rm -rf "$DIR"
}
trap clean_up EXIT
trap 'echo; exit 130' INT HUP
trap 'exit 143' TERM

say() { printf '%s\n' "$*"; }
# Commands as a reader would type them inside the namespace.
shown() { printf '  %s$ %s%s\n' "$bold" "$*" "$off"; }
inside() { ip netns exec "$NS" "$@"; }

# wait_until COMMAND…: whether it comes true in time.
wait_until() {
  local end=$((${EPOCHREALTIME/./} + MOST_STEPS_WAIT * 1000000))
  until "$@" >/dev/null 2>&1; do
    ((${EPOCHREALTIME/./} < end)) || return 1
    read -rt 0.01 <> <(:) || true
  done
}

seen=0
# What linxd has said since the last time, in the reader's words for the namespace.
news() {
  local line colour
  while IFS= read -r line; do
    seen=$((seen + 1))
    case $line in
      *": restored "* | *": removed "*) colour=$green ;;
      *) colour='' ;;
    esac
    printf '    %s%s%s\n' "$colour" "$line" "$off"
  done < <(tail -n "+$((seen + 1))" "$LOG")
}
more_said() { (($(wc -l <"$LOG") > seen)); }

healed=0 steps=0
# sabotage "what it does" "how the reader sees it is well" COMMAND…
sabotage() {
  local what=$1 well=$2
  shift 2
  steps=$((steps + 1))
  say
  say "$steps. $what"
  shown "$*"
  inside "$@"
  wait_until more_said || true
  if wait_until inside bash -c "$well"; then
    healed=$((healed + 1))
    news
  else
    news
    say "    ${red}not healed${off}"
  fi
}

if ((EUID != 0)); then
  say "demo: needs root, to make network namespaces" >&2
  exit 1
fi

# -- a container's namespace and the world outside it ----------------------------------------------------------
ip netns add "$NS"
ip netns add "$PEER"
ip -n "$NS" link add eth0 type veth peer name uplink netns "$PEER"
ip -n "$PEER" address add 10.0.0.1/24 dev uplink
ip -n "$PEER" link set uplink up

cat >"$DIR/demo.toml" <<EOF
[scope]
netns = "/run/netns/$NS"

[link.eth0]
mtu = 1400
addresses = ["10.0.0.5/24", "fd00::5/64"]

[[route]]
to = "default"
via = "10.0.0.1"

[[route]]
to = "198.51.100.0/24"
via = "10.0.0.1"

[[rule]]
from = "10.0.0.0/24"
table = 100
priority = 1000
EOF
with_nft=false with_sysctl=false
if command -v nft >/dev/null && inside nft list ruleset >/dev/null 2>&1; then
  with_nft=true
  cat >>"$DIR/demo.toml" <<'EOF'

[netfilter]
ruleset = """
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    ip saddr 10.0.0.0/24 accept
  }
}
"""
EOF
fi
if "$PYTHON" -c 'import linxd.sources.sysctl.source' 2>/dev/null; then
  with_sysctl=true
  cat >>"$DIR/demo.toml" <<'EOF'

[sysctl]
"net.ipv4.ip_forward" = 1
EOF
fi

say "${bold}This file declares the network of a container:${off}"
sed "s/^/  $dim/; s/\$/$off/" "$DIR/demo.toml"
say
say "${bold}linxd makes it so, and keeps it so:${off}"
shown "linxd --scope demo --file demo.toml"
touch "$LOG"
PYTHONUNBUFFERED=1 "$PYTHON" -m linxd.cli.daemon --scope demo --file "$DIR/demo.toml" --state-dir "$DIR/state" \
  2>"$LOG" &
DAEMON=$!
converged() { grep -q '/rtnl: converged' "$LOG"; }
MOST_STEPS_WAIT=10
if ! wait_until converged; then
  news
  say "${red}it did not converge${off}"
  exit 1
fi
MOST_STEPS_WAIT=3
news

say
say "${bold}Now somebody breaks it, in every way that comes to mind:${off}"

has_address='ip -4 -o address show dev eth0 | grep -q 10.0.0.5/24'
has_default='ip route show default | grep -q "via 10.0.0.1"'
has_other='ip route show 198.51.100.0/24 | grep -q "via 10.0.0.1"'
has_both="$has_address && $has_default && $has_other"

sabotage "An address is deleted; the kernel drops what hangs on it without a word." "$has_both" \
  ip address del 10.0.0.5/24 dev eth0
sabotage "A route is deleted." "$has_default" \
  ip route del default
sabotage "A route is changed in place: no deletion ever happened." \
  "ip route show 198.51.100.0/24 | grep -q 'via 10.0.0.1' && ! ip route show 198.51.100.0/24 | grep -q 10.0.0.77" \
  ip route replace 198.51.100.0/24 via 10.0.0.77
sabotage "The link is set down: its routes are gone, again without a word." "$has_both" \
  ip link set eth0 down
sabotage "The MTU is changed." "ip -o link show eth0 | grep -q 'mtu 1400 '" \
  ip link set eth0 mtu 9000
sabotage "All addresses are flushed." "$has_both && ip -6 -o address show dev eth0 | grep -q fd00::5/64" \
  ip address flush dev eth0 scope global
sabotage "A rule is deleted, by a process of a pid namespace of its own, as in a container." \
  'ip rule show | grep -q "^1000:.*10.0.0.0/24"' \
  unshare --pid --fork ip rule del priority 1000
if $with_nft; then
  sabotage "The firewall is flushed." "nft list ruleset | grep -q 'policy drop'" \
    nft flush ruleset
fi
if $with_sysctl; then
  sabotage "Forwarding is turned off." 'test "$(sysctl -n net.ipv4.ip_forward)" = 1' \
    sysctl -qw net.ipv4.ip_forward=0
fi

say
say "${bold}What others made is theirs:${off}"
shown "ip route add 203.0.113.0/24 via 10.0.0.1"
inside ip route add 203.0.113.0/24 via 10.0.0.1
shown "linxctl diff demo"
"$PYTHON" -m linxd.cli.linxctl diff demo --file "$DIR/demo.toml" --state-dir "$DIR/state" >"$DIR/diff" 2>&1 ||
  true
sed 's/^/    /' "$DIR/diff"
verdict=0
inside ip route show 203.0.113.0/24 | grep -q . || verdict=1
grep -q 'as declared' "$DIR/diff" || verdict=1

say
shown "linxctl status demo"
"$PYTHON" -m linxd.cli.linxctl status demo --state-dir "$DIR/state" | sed "s/^/    /; s|$DIR/||g" || true

say
if ((healed == steps && verdict == 0)); then
  say "${green}${bold}Healed $healed of $steps.${off} Nothing foreign was touched. Cleaning up."
else
  say "${red}${bold}Healed $healed of $steps.${off} That is not as it should be."
  exit 1
fi
