# SPDX-License-Identifier: MIT
"""A firewall in the daemon: healed with its culprit named, a wrong one changes nothing and holds nobody up,
and where it is required no address comes before it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.daemon.running import Daemon, ip

FILE = """
[link.lo]
addresses = ["192.0.2.1/32"]

[netfilter]
{required}ruleset = '''
table inet ours {{
  chain input {{
    type filter hook input priority 0; policy drop;
    {first}
    tcp dport 22 counter accept
    {wrong}
  }}
}}
'''

[sysctl]
"net.ipv4.ip_forward" = {forward}
"""


def nft(netns: str, *words: str) -> str:
    """`nft WORDS` in the namespace."""
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "nft", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scope.toml"


def declare(
    file: Path, *, wrong: str = "", first: str = "ct state established accept", **more: object
) -> None:
    values = {"required": "", "forward": 0, **more}
    file.write_text(FILE.format(wrong=wrong, first=first, **values))


def test_a_flushed_ruleset_comes_back_and_says_who_it_was(netns: str, file: Path, tmp_path: Path) -> None:
    declare(file)
    with Daemon(netns, file, tmp_path / "state") as daemon:
        daemon.converged()
        before = nft(netns, "list", "ruleset")
        nft(netns, "flush", "ruleset")
        assert "(deleted by nft[" in daemon.line("restored table inet ours")
        assert nft(netns, "list", "ruleset") == before
        assert daemon.stop() == 0
    # started again, it has nothing to do
    with Daemon(netns, file, tmp_path / "state") as daemon:
        daemon.converged()
        assert not [line for line in daemon.lines if " op in " in line]


def test_one_wrong_rule_changes_nothing_and_the_rest_converges(
    netns: str, file: Path, tmp_path: Path
) -> None:
    declare(file)
    with Daemon(netns, file, tmp_path / "state") as daemon:
        daemon.converged()
        before = nft(netns, "-a", "list", "ruleset")
        declare(file, wrong="jump nowhere", first="udp dport 53 accept", forward=1)
        daemon.signal(signal.SIGHUP)
        daemon.line("reloaded: degraded")
        line = next(line for line in daemon.lines if "jump nowhere" in line)
        assert "scope.toml:12:10:" in line
        assert "chain input" in line
        assert "No such file or directory" in line
        assert nft(netns, "-a", "list", "ruleset") == before
        assert "changed sysctl net.ipv4.ip_forward" in daemon.text
        # what is in force is guarded meanwhile
        nft(netns, "delete", "table", "inet", "ours")
        daemon.line("restored table inet ours")
        declare(file, first="udp dport 53 accept", forward=1)
        daemon.signal(signal.SIGHUP)
        daemon.line("netfilter: converged")
        assert "udp dport 53 accept" in nft(netns, "list", "ruleset")


def test_required_keeps_addresses_away_until_it_has_loaded(netns: str, file: Path, tmp_path: Path) -> None:
    declare(file, wrong="jump nowhere", required="required = true\n")
    with Daemon(netns, file, tmp_path / "state") as daemon:
        daemon.line("waits for the netfilter ruleset")
        assert "192.0.2.1" not in ip(netns, "address", "show", "dev", "lo")
        declare(file, required="required = true\n")
        daemon.signal(signal.SIGHUP)
        daemon.line(r"rtnl: .*created 1 address")
        assert "192.0.2.1" in ip(netns, "address", "show", "dev", "lo")
