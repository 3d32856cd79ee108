# SPDX-License-Identifier: MIT
"""Who may do what, on a real bus: by the uid that the bus tells, and by the word of whoever stands there as
polkit."""

from __future__ import annotations

import asyncio
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from linxd.bus.connection import BusError, Call, Connection
from linxd.bus.polkit import POLKIT, Authority

NAME, PATH, INTERFACE = "org.linxd1.netns.c1", "/org/linxd1/test", "org.linxd1.Test"
ACTION = "org.linxd1.reload"
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


class Guarded:
    """A service whose one method takes an action."""

    def __init__(self, address: str) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.connection = Connection(address, names=[NAME], called=self._called)
        self._authority = Authority(self.connection, "c1")

    def _called(self, call: Call) -> None:
        if call.member != "Do":
            # gdbus introspects first.
            self.connection.refuse(call, "org.freedesktop.DBus.Error.UnknownMethod", call.member)
            return
        task = asyncio.create_task(self._serve(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: Call) -> None:
        try:
            await self._authority.allow(call, "reload")
        except BusError as error:
            self.connection.refuse(call, error.name, str(error))
        else:
            self.connection.answer(call, "s", ["done"])


class Polkit:
    """Answers as polkit does; what, the test says."""

    def __init__(self, address: str, answer: tuple[bool, bool] | str) -> None:
        self.asked: list[Any] = []
        self._answer = answer
        self.connection = Connection(address, names=[POLKIT], called=self._called)

    def _called(self, call: Call) -> None:
        assert (call.member, call.signature) == ("CheckAuthorization", "(sa{sv})sa{ss}us")
        self.asked.append(call.body)
        if isinstance(self._answer, str):
            self.connection.refuse(call, self._answer, "no")
        else:
            self.connection.answer(call, "(bba{ss})", [[*self._answer, {}]])


async def ask(address: str, *, uid: int, interactive: bool = False) -> tuple[int, str]:
    """Call the method as ``uid``: gdbus' exit code and words."""
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    words += ["gdbus", "call", f"--address={address}", f"--dest={NAME}", f"--object-path={PATH}"]
    words += ["--interactive"] if interactive else []
    process = await asyncio.create_subprocess_exec(
        *words, f"--method={INTERFACE}.Do", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, out.decode()


def guarded(
    bus: Any, answer: tuple[bool, bool] | str | None, run: Callable[[Polkit | None], Awaitable[None]]
) -> None:
    """Run with the service, and with somebody who answers as polkit unless ``answer`` is None."""

    async def main() -> None:
        service = Guarded(bus.address)
        await service.connection.open()
        polkit = None if answer is None else Polkit(bus.address, answer)
        if polkit is not None:
            await polkit.connection.open()
        try:
            await run(polkit)
        finally:
            service.connection.close()
            if polkit is not None:
                polkit.connection.close()

    asyncio.run(main())


def test_root_may_and_polkit_is_not_asked(bus) -> None:
    async def run(polkit: Polkit | None) -> None:
        code, text = await ask(bus.address, uid=0)
        assert (code, text.strip()) == (0, "('done',)")
        assert polkit is not None
        assert not polkit.asked

    guarded(bus, (False, False), run)


def test_without_polkit_only_root_may(bus) -> None:
    async def run(polkit: Polkit | None) -> None:
        assert (await ask(bus.address, uid=0))[0] == 0
        code, text = await ask(bus.address, uid=NOBODY)
        assert code != 0
        assert f"{ACTION}: only root may" in text

    guarded(bus, None, run)


def test_polkit_is_asked_about_the_caller_and_its_word_counts(bus) -> None:
    async def run(polkit: Polkit | None) -> None:
        code, text = await ask(bus.address, uid=NOBODY)
        assert (code, text.strip()) == (0, "('done',)")
        assert polkit is not None
        ((kind, subject), action, details, flags, cancel) = polkit.asked[0]
        assert (kind, action, details, flags, cancel) == ("system-bus-name", ACTION, {"scope": "c1"}, 0, "")
        assert re.fullmatch(r":\d+\.\d+", subject["name"].value)

    guarded(bus, (True, False), run)


@pytest.mark.parametrize(("interactive", "flag"), [(False, 0), (True, 1)])
def test_person_is_asked_only_if_the_caller_lets(bus, interactive: bool, flag: int) -> None:
    async def run(polkit: Polkit | None) -> None:
        code, text = await ask(bus.address, uid=NOBODY, interactive=interactive)
        assert code != 0
        assert ACTION in text
        assert ("AccessDenied" if interactive else "InteractiveAuthorizationRequired") in text
        assert polkit is not None
        assert [asked[3] for asked in polkit.asked] == [flag]

    guarded(bus, (False, True), run)


@pytest.mark.parametrize(
    "answer",
    [(False, False), "org.freedesktop.PolicyKit1.Error.NotAuthorized", "org.freedesktop.DBus.Error.Failed"],
)
def test_what_is_no_yes_is_a_no(bus, answer: tuple[bool, bool] | str) -> None:
    async def run(polkit: Polkit | None) -> None:
        code, text = await ask(bus.address, uid=NOBODY)
        assert code != 0
        assert "AccessDenied" in text
        assert ACTION in text

    guarded(bus, answer, run)


def test_every_action_of_the_xml_stands_in_the_policy_and_no_other() -> None:
    policy = ElementTree.parse(ROOT / "dbus" / "org.linxd1.policy")
    declared = {action.get("id") for action in policy.iter("action")}
    named: set[str] = set()
    for file in (ROOT / "dbus").glob("*.xml"):
        named.update(re.findall(r"polkit: (org\.linxd1\.[a-z-]+)", file.read_text()))
    assert declared == named
    for action in policy.iter("action"):
        # Without it polkit answers nobody but root, which a namespace's daemon is not.
        owners = [one.text for one in action.iter("annotate") if one.get("key", "").endswith(".owner")]
        assert owners == ["unix-user:linxd"]
