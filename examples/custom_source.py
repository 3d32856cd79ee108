# SPDX-License-Identifier: MIT
"""A source of one's own, kept by a loop: the symbolic links of a directory.

python3 examples/custom_source.py DIRECTORY NAME=TARGET …       keep them until interrupted
python3 examples/custom_source.py --once DIRECTORY NAME=TARGET …   make them, undo one, see it healed
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass

from linxd.loop import Loop
from linxd.objects import compare
from linxd.patch import Change, Key, Op, Patch, Report
from linxd.source import ObjectSource, Owned, Pass


@dataclass(frozen=True)
class Symlink:
    """One object, desired or observed: what tells it apart, and itself in words."""

    path: str
    target: str

    @property
    def key(self) -> Key:
        return ("symlink", self.path)

    def words(self) -> str:
        return f"{self.path} -> {self.target}"


Links = dict[Key, Symlink]


# The source: three methods, about ten lines.
class Symlinks(ObjectSource[Links, Links]):
    name = "symlinks"

    async def observe(self, work: Pass[Links]) -> Links:
        paths = [str(key[1]) for key in {**work.desired, **work.owned.of("symlink")}]
        return {
            ("symlink", path): Symlink(path, os.readlink(path)) for path in paths if os.path.islink(path)
        }

    def diff(self, observed: Links, desired: Links, owned: Owned) -> Patch:
        return compare(observed, desired, owned, kind="symlink", changes=differences)

    def apply(self, op: Op) -> None:
        if op.have is not None:
            os.unlink(str(op.key[1]))
        if isinstance(op.want, Symlink):
            os.symlink(op.want.target, op.want.path)


def differences(have: Symlink, want: Symlink) -> tuple[Change, ...]:
    return () if have.target == want.target else (Change("target", have.target, want.target),)


def declared(directory: str, arguments: list[str]) -> Links:
    links = [
        Symlink(os.path.join(directory, name), target)
        for name, target in (a.split("=", 1) for a in arguments)
    ]
    return {link.key: link for link in links}


def tell(report: Report) -> None:
    for op in report.applied:
        print(f"{report.trigger}: {op.describe()}", flush=True)
    for condition in report.conditions:
        print(f"{report.trigger}: {condition.name} is {condition.state}: {condition.text}", flush=True)


async def main(arguments: list[str]) -> None:
    once = arguments[0] == "--once"
    directory, *rest = arguments[1:] if once else arguments
    desired = declared(directory, rest)
    loop = Loop(Symlinks(), desired, resync=5.0, on_report=tell)
    running = asyncio.create_task(loop.run())
    if once:
        await loop.request()
        for link in list(desired.values())[:1]:
            os.unlink(link.path)
        await loop.request()
        print(f"{loop.state}: {loop.status.total} objects, {loop.status.drifts} drifted and healed")
        loop.stop()
    await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
