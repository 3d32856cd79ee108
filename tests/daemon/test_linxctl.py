# SPDX-License-Identifier: MIT
"""`linxctl`, as a person and as a program would use it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from linxd.cli.once import finished
from tests.daemon.running import ROOT, Daemon, ip, ip_stays

BASE = """
[link.lo]
addresses = ["192.0.2.1/32"]

[[route]]
to = "198.51.100.0/24"
dev = "lo"
"""


class Ctl:
    """Runs `linxctl` with a state directory of its own."""

    def __init__(self, path: Path) -> None:
        self.state = path / "state"
        self.path = path

    def file(self, name: str, text: str) -> str:
        path = self.path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    def __call__(self, *words: str, rc: int | None = 0, state: bool = True) -> str:
        command = [sys.executable, "-m", "linxd.cli.linxctl", *words]
        if state:
            command += ["--state-dir", str(self.state)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert "Traceback" not in done.stderr
        assert rc is None or done.returncode == rc, done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return f"{done.stdout}{done.stderr}"


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    return Ctl(tmp_path)


def test_check_tells_all_faults_of_all_files(ctl: Ctl) -> None:
    good = ctl.file("c1", BASE)
    bad = ctl.file("c2", '[link.lo]\nadresses = []\n[[route]]\nto = "x"\n')
    assert ctl("check", good, state=False) == "c1: fine, 1 link, 1 address, 1 route\n"
    text = ctl("check", good, bad, rc=1, state=False)
    assert "c1: fine" in text
    assert re.search(r"c2\.toml:2:1: .*did you mean", text)
    assert "c2.toml:4" in text
    loaded = json.loads(ctl("check", bad, "--json", rc=1, state=False))
    assert loaded[0]["loads"] is False
    assert {fault["line"] for fault in loaded[0]["faults"]} == {2, 4}


@pytest.mark.parametrize("word", ["lx-nobody", "host"])
def test_check_takes_the_name_of_a_scope(ctl: Ctl, word: str) -> None:
    text = ctl("check", word, rc=None, state=False)
    assert "can't be read" not in text
    assert word in text
    assert "lx-nobody.toml: can't be read" in ctl("check", "lx-nobody.toml", rc=1, state=False)


def test_check_asks_nft_what_it_makes_of_a_ruleset(ctl: Ctl) -> None:
    text = "table inet f { chain c { type filter hook input priority 0; tcp dport nonsense accept; }; }"
    bad = ctl.file("c1", f"[netfilter]\nruleset = '{text}'\n")
    assert "nonsense" in ctl("check", bad, rc=1, state=False)
    good = ctl.file("c1", f"[netfilter]\nruleset = '{text.replace('nonsense', '22')}'\n")
    assert ctl("check", good, state=False) == "c1: fine, 1 ruleset\n"


def test_diff_shows_the_plan_and_writes_nothing(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, BASE)
    before = ip(netns, "address") + ip(netns, "route")
    assert ctl("diff", "--file", file, rc=1).splitlines() == [
        "~ ip link set lo up   # state down -> up",
        "+ ip address add 192.0.2.1/32 dev lo",
        "+ ip route add 198.51.100.0/24 dev lo",
    ]
    assert ip(netns, "address") + ip(netns, "route") == before
    assert not ctl.state.exists()
    plan = json.loads(ctl("diff", "--file", file, "--json", rc=1))
    assert plan["as_declared"] is False
    assert [op["verb"] for op in plan["ops"]] == ["update", "create", "create"]
    assert plan["ops"][1]["command"] == "ip address add 192.0.2.1/32 dev lo"


def test_apply_once_is_a_pass_without_a_daemon_and_remembers(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, BASE)
    text = ctl("apply", "--once", file)
    assert text.splitlines()[-1] == f"{netns}: as declared, 3 ops"
    assert "198.51.100.0/24" in ip(netns, "route", "show")
    assert ctl("diff", "--file", file) == f"{netns}: as declared\n"
    assert ctl("apply", "--once", file) == f"{netns}: as declared, 0 ops\n"
    # What is declared no more goes; what somebody else made stays.
    ip(netns, "route", "add", "203.0.113.0/24", "dev", "lo")
    ctl("apply", "--once", ctl.file(netns, "[link.lo]\nup = true\n"))
    assert [line.split()[0] for line in ip(netns, "route", "show").splitlines()] == ["203.0.113.0/24"]


def test_sysctls_and_rulesets_are_planned_applied_and_given_back(ctl: Ctl, netns: str) -> None:
    ruleset = "table inet f { chain c { type filter hook input priority 0; tcp dport 22 accept; }; }"
    sysctl = '"net.ipv4.conf.lo.rp_filter" = 2\n"net.ipv4.tcp_rmem" = "4096 131072 4194304"\n'
    file = ctl.file(netns, f"[netfilter]\nruleset = '{ruleset}'\n[sysctl]\n{sysctl}")
    before = _sysctl(netns)
    text = ctl("diff", "--file", file, rc=1)
    assert "+ nft add table inet f" in text
    assert "~ sysctl -w net.ipv4.conf.lo.rp_filter=2   # value 0 -> 2" in text
    assert "~ sysctl -w 'net.ipv4.tcp_rmem=4096 131072 4194304'" in text
    ctl("apply", "--once", file)
    assert ctl("diff", "--file", file) == f"{netns}: as declared\n"
    assert _sysctl(netns)[0] == "2"
    assert f"{netns}: released, 3 ops" in ctl("release", netns)
    assert _sysctl(netns) == before


def _sysctl(netns: str) -> list[str]:
    keys = ["net.ipv4.conf.lo.rp_filter", "net.ipv4.tcp_rmem"]
    command = ["ip", "netns", "exec", netns, "sysctl", "-n", *keys]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_what_can_not_be_done_is_drift_and_says_why(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, '[link.eth9]\naddresses = ["192.0.2.1/32"]\n')
    text = ctl("diff", "--file", file, rc=1)
    assert "! link eth9 is pending" in text
    assert "! address 192.0.2.1/32 on eth9 is pending" in text
    assert "is pending" in ctl("apply", "--once", file, rc=1)


def test_a_filter_that_does_not_load_keeps_addresses_away_if_it_is_required(ctl: Ctl, netns: str) -> None:
    ruleset = "table inet f { chain c { type filter hook input priority 0; jump c; } }"
    file = ctl.file(netns, BASE + f"[netfilter]\nrequired = true\nruleset = '{ruleset}'\n")
    text = ctl("apply", "--once", file, rc=2)
    assert "not done: the netfilter ruleset is required and has not loaded" in text
    assert "192.0.2.1" not in ip(netns, "address")


def test_release_deletes_what_was_made_and_leaves_what_was_found(ctl: Ctl, netns: str) -> None:
    ip(netns, "address", "add", "192.0.2.1/32", "dev", "lo")
    ip(netns, "link", "set", "lo", "up")
    ctl("apply", "--once", ctl.file(netns, BASE))
    os.unlink(ctl.path / f"{netns}.toml")
    text = ctl("release", netns)
    assert text.splitlines() == ["- ip route delete 198.51.100.0/24 dev lo", f"{netns}: released, 1 op"]
    assert ip(netns, "route", "show") == ""
    assert "192.0.2.1/32" in ip(netns, "address", "show", "dev", "lo")
    assert list(ctl.state.rglob("*")) == [ctl.state / ".lock"]
    assert ctl("release", netns) == f"{netns}: released, 0 ops\n"


def test_beside_a_daemon_one_may_look_but_not_write(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, BASE)
    with Daemon(netns, file, ctl.state) as daemon:
        daemon.converged()
        assert ctl("diff", "--file", file) == f"{netns}: as declared\n"
        assert f"served by linxd[{daemon.process.pid}]" in ctl("apply", "--once", file, rc=2)
        # The daemon's ledger is as it was: it still knows what is its own.
        ip(netns, "route", "del", "198.51.100.0/24")
        daemon.line("restored route")
        assert daemon.stop() == 0


def test_captured_state_loads_and_is_as_declared(ctl: Ctl, netns: str) -> None:
    ip(netns, "link", "add", "v0", "mtu", "1400", "type", "veth", "peer", "name", "v1")
    ip(netns, "link", "set", "v0", "up")
    ip(netns, "link", "set", "v1", "up")
    ip(netns, "link", "add", "br0", "type", "bridge")
    ip(netns, "link", "set", "v1", "master", "br0")
    ip(netns, "link", "set", "br0", "up")
    ip(netns, "address", "add", "10.0.0.5/24", "dev", "v0")
    ip(netns, "route", "add", "10.7.0.0/16", "via", "10.0.0.1")
    ip(netns, "rule", "add", "from", "10.0.0.0/24", "table", "100", "priority", "77")
    ip(netns, "neighbour", "add", "10.0.0.9", "lladdr", "02:00:00:00:00:09", "dev", "v0")
    ruleset = (
        "table inet f { set s { type ipv4_addr; elements = { 192.0.2.7 }; };"
        " chain c { ip saddr @s drop; }; }"
    )
    subprocess.run(["ip", "netns", "exec", netns, "nft", ruleset], check=True)
    for key in (
        "ipv4.conf.v0.rp_filter=2",
        "ipv4.ip_forward=1",
        "core.somaxconn=321",
        "ipv6.conf.v0.accept_ra=0",
    ):
        subprocess.run(["ip", "netns", "exec", netns, "sysctl", "-qw", f"net.{key}"], check=True)
    text = ctl("capture", "--netns", netns, state=False)
    file = ctl.file(netns, text)
    assert f"{netns}: fine" in ctl("check", file, state=False)
    assert ctl("diff", "--file", file) == f"{netns}: as declared\n"
    shape = json.loads(ctl("capture", "--netns", netns, "--json", state=False))
    assert shape["link"]["v0"]["mtu"] == 1400
    assert "192.0.2.7" in shape["netfilter"]["ruleset"]
    assert shape["sysctl"]["net.core.somaxconn"] == 321
    assert shape["sysctl"]["net.ipv4.ip_forward"] == 1
    assert shape["sysctl"]["net.ipv4.conf.v0.rp_filter"] == 2
    assert "net.ipv4.conf.all.forwarding" not in shape["sysctl"]
    assert len(shape["sysctl"]) < 15
    inside = subprocess.run(
        ["ip", "netns", "exec", netns, sys.executable, "-m", "linxd.cli.linxctl", "capture"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "10.7.0.0/16" in inside.stdout


def test_list_and_status_tell_how_a_scope_is(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, BASE)
    assert "no daemon" in ctl("status", netns, rc=2)
    with Daemon(netns, file, ctl.state) as daemon:
        daemon.converged()
        with ip_stays(netns, "route", "del", "198.51.100.0/24") as pid:
            daemon.line("restored route")
        _until(lambda: "restored route" in ctl("status", rc=None))
        text = ctl("status", netns)
        assert f"● {netns}: converged since " in text
        assert f"linxd[{daemon.process.pid}]" in text
        assert re.search(r"rtnl +converged +3 objects +1 drift +healed in [\d.]+ ms", text)
        assert re.search(rf"rtnl: restored route 198.51.100.0/24 dev lo \(deleted by ip\[{pid}\]", text)
        (row,) = [line.split() for line in ctl("list").splitlines() if line.startswith(netns)]
        assert row == [netns, "converged", "3", str(daemon.process.pid), f"/run/netns/{netns}"]
        word = json.loads(ctl("status", netns, "--json"))
        assert (word["state"], word["running"]) == ("converged", True)
        assert daemon.stop() == 0
    assert "not served by a daemon" in ctl("status", netns, rc=3)


def test_status_fits_on_a_screen_however_much_is_wrong(ctl: Ctl, netns: str) -> None:
    """And says how much that is."""
    routes = "".join(
        f'[[route]]\nto = "10.{n // 256}.{n % 256}.0/24"\nvia = "203.0.113.9"\ndev = "lo"\n'
        for n in range(300)
    )
    own = "".join(f'[[route]]\nto = "10.9.{n}.0/24"\ntype = "blackhole"\n' for n in range(12))
    more = (
        '[sysctl]\n"net.core.somaxconn" = 99\n[netfilter]\nruleset = "table ip t { chain c { counter; } }"\n'
    )
    with Daemon(netns, ctl.file(netns, f"{BASE}{routes}{own}{more}"), ctl.state) as daemon:
        daemon.line("rtnl: degraded")
        for number in range(12):
            ctl("pause", netns, f"route blackhole 10.9.{number}.0/24", "--for", "10m")
        _until(lambda: "… and 7 more" in ctl("status", netns, rc=1))
        lines = ctl("status", netns, rc=1).splitlines()
        assert len(lines) <= 24, "\n".join(lines)
        assert lines[-1].strip() == "… and 295 more"


def test_status_tells_how_each_sysctl_is_watched(ctl: Ctl, netns: str) -> None:
    file = ctl.file(
        netns, '[sysctl]\n"net.ipv4.ip_forward" = 1\n"net.core.somaxconn" = 99\n"net.ipv4.tcp_sack" = 0\n'
    )
    with Daemon(netns, file, ctl.state) as daemon:
        daemon.line("sysctl: converged")
        _until(lambda: "1 by event, 2 by a look each second" in ctl("status", netns, rc=None))
        word = json.loads(ctl("status", netns, "--json", rc=None))
        (loop,) = [loop for loop in word["loops"] if loop["source"] == "sysctl"]
        assert loop["watched"] == {
            "event": ["net.ipv4.ip_forward"],
            "poll": ["net.core.somaxconn", "net.ipv4.tcp_sack"],
        }


def test_a_daemon_that_was_killed_is_called_dead(ctl: Ctl, netns: str) -> None:
    with Daemon(netns, ctl.file(netns, BASE), ctl.state) as daemon:
        daemon.converged()
        _until(lambda: '"converged"' in ctl("status", netns, "--json", rc=None))
    assert "its daemon died" in ctl("status", netns, rc=3)


def _until(true: Callable[[], bool]) -> None:
    for _ in range(50):
        if true():
            return
    raise AssertionError("it never came to be")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("diff", "nosuch"), "no file declares nosuch"),
        (("diff",), "Name a scope"),
        (("diff", "--file", "/nonexistent/c1.toml"), "can't be read"),
        (("apply", "--once", "/nonexistent/a b.toml"), "is no name of a scope"),
        (("release", "nosuch"), "/run/netns/nosuch is not there"),
        (("status", "nosuch"), "there is no scope nosuch"),
    ],
)
def test_trouble_is_a_line_and_code_2(ctl: Ctl, words: tuple[str, ...], says: str) -> None:
    assert says in ctl(*words, rc=2)


def test_without_root_trouble_says_so(ctl: Ctl, netns: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to be somebody else")
    file = ctl.file(netns, BASE)
    os.chmod(tmp_path, 0o755)
    code = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from linxd.cli.linxctl import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        ["python3", "-c", code, "diff", "--file", file],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("linxctl: ") or "can't be read" in done.stderr


def test_colours_are_for_terminals_that_want_them(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, BASE)

    def on_terminal(**environment: str) -> str:
        ours, theirs = pty.openpty()
        try:
            subprocess.run(
                [sys.executable, "-m", "linxd.cli.linxctl", "--no-pager", "diff", "--file", file],
                stdout=theirs,
                cwd=ROOT,
                check=False,
                env={**os.environ, "TERM": "xterm", "LINXD_STATE_DIR": str(ctl.state), **environment},
            )
            return os.read(ours, 65536).decode()
        finally:
            os.close(ours)
            os.close(theirs)

    assert "\x1b[1;32m+" in on_terminal()
    assert "\x1b" not in on_terminal(NO_COLOR="1")
    assert "\x1b" not in on_terminal(TERM="dumb")


def test_a_reader_who_has_seen_enough_is_no_trouble(ctl: Ctl, netns: str) -> None:
    file = ctl.file(netns, BASE)
    command = f"{sys.executable} -m linxd.cli.linxctl diff --file {file} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "verb", ["", "check", "diff", "apply", "release", "capture", "list", "status", "log"]
)
def test_every_command_explains_itself(ctl: Ctl, verb: str) -> None:
    text = ctl(*([verb] if verb else []), "--help", state=False)
    assert "exit code" in text
    assert len(text.splitlines()) > 8


def test_of_what_passes_came_to_no_text_is_made_at_the_end() -> None:
    class Report:
        def __repr__(self) -> str:
            raise AssertionError("a text of it was made")

    report = Report()

    async def work() -> Report:
        return report

    assert finished(work()) is report
