# SPDX-License-Identifier: MIT
"""`linxctl capture`: the present state of a namespace as a file that declares it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import threading

from linxd.cli.once import Trouble, go_to
from linxd.cli.output import Subparsers, print_json
from linxd.config import NetnsRef, ScopeConfig
from linxd.config.model import HOST
from linxd.config.write import raw_of, write
from linxd.netlink import rt, wire
from linxd.netlink.errors import NetlinkError
from linxd.netlink.socket import Requests, open_netlink
from linxd.netns import leave
from linxd.sources.netfilter.model import Desired as Netfilter
from linxd.sources.netfilter.model import Ruleset
from linxd.sources.rtnl.capture import Defaults, capture, fresh_links
from linxd.sources.sysctl import capture as sysctls
from linxd.sources.sysctl.model import Desired as Sysctls
from linxd.sources.sysctl.model import Path
from linxd.sources.sysctl.procfs import Procfs

MODEL = "linxd0"
"""A link that shows what a new one has."""


def add(commands: Subparsers) -> None:
    """The command's words."""
    parser = commands.add_parser(
        "capture",
        help="print the present state of a namespace as a file",
        description=(
            "Prints what is set in this network namespace, or in another one, as a file that `linxctl"
            " check` accepts and `linxctl diff` calls as declared. What the kernel makes by itself, and what"
            " dhcp or router advertisements brought, is left out. Writes nothing."
        ),
        epilog="exit codes: 0 done, 2 trouble",
    )
    parser.add_argument(
        "--netns", metavar="NAME", help="a name as `ip netns` knows it, or a path; default: here"
    )
    parser.add_argument("--json", action="store_true", help="print for programs, in the shape of the file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    name, ref = HOST, NetnsRef("host")
    if options.netns is not None:
        path = options.netns if "/" in options.netns else f"/run/netns/{options.netns}"
        name, ref = os.path.basename(path), NetnsRef("path", path)
    namespace = go_to(HOST, ref)
    namespace.close()
    try:
        with Requests(open_netlink()) as requests:
            rtnl = capture(requests, _defaults())
    except NetlinkError as error:
        raise Trouble(f"can't be read: {error}") from None
    sysctl = _sysctls(host=options.netns is None and namespace.host)
    config = ScopeConfig(name, netns=ref, rtnl=rtnl, netfilter=_ruleset(), sysctl=sysctl)
    if options.json:
        print_json({key: value for key, value in raw_of(config).items() if value})
    else:
        print(write(config), end="")
    return 0


def _sysctls(*, host: bool) -> Sysctls | None:
    """What is set here and not in a namespace made to compare with; None where that can't be made, or
    nothing is."""
    fresh: dict[Path, str] = {}
    model: list[str] = []

    def look() -> None:
        with contextlib.suppress(OSError):
            leave()
            with contextlib.suppress(OSError), Requests(open_netlink()) as requests:
                payload = rt.encode_link(name=MODEL, kind="veth")
                requests.request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, payload)
                model.append(MODEL)
            procfs = Procfs()
            try:
                fresh.update(sysctls.values(procfs))
            finally:
                procfs.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    procfs = Procfs()
    try:
        here = sysctls.values(procfs)
    except OSError as error:
        raise Trouble(f"/proc/sys can't be read: {error.strerror}") from None
    finally:
        procfs.close()
    found = sysctls.capture(here, fresh, "".join(model), host=host)
    return found if found.settings else None


def _ruleset() -> Netfilter | None:
    """What nft lists, table by table. Those of iptables-nft are that tool's business, and left out."""
    try:
        tables = [
            line.split()[1:] for line in _nft("list", "tables").splitlines() if line.startswith("table ")
        ]
    except FileNotFoundError:
        return None
    texts = []
    for family, table in tables:
        text = _nft("--stateless", "list", "table", family, table)
        if "iptables-nft" not in text and not re.search(r"^\s*.*\bxt (match|target)\b", text, re.MULTILINE):
            texts.append(text)
    return Netfilter((Ruleset("".join(texts), ""),)) if texts else None


def _nft(*words: str) -> str:
    done = subprocess.run(["nft", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"nft {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _defaults() -> Defaults:
    """What new links look like, from a namespace made to see it; where none can be made, nobody knows."""
    made: list[Requests] = []

    def make() -> None:
        try:
            leave()
            made.append(Requests(open_netlink()))
        except OSError:
            pass

    # The thread ends, and its namespace with the socket.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return fresh_links(made[0]) if made else lambda kind, required: None
