# SPDX-License-Identifier: MIT
"""Who may do what: root always, others as polkit says, nobody else where there is no polkit.

It knows actions by their names and not what they do.
"""

from __future__ import annotations

from linxd.bus.connection import ANSWER, BUS, BUS_PATH, BusError, Call, Connection, Unreachable, Variant
from linxd.bus.names import ACCESS_DENIED, INTERACTIVE

POLKIT = "org.freedesktop.PolicyKit1"
AUTHORITY = f"{POLKIT}.Authority"
PATH = "/org/freedesktop/PolicyKit1/Authority"
PERSON = 300.0
"""Seconds that a person has to prove who they are."""
_ASK_A_PERSON = 1


class Authority:
    """Asks for each call anew: rules change, and so does who is logged in. ``scope`` is what rules may look
    up as detail."""

    def __init__(self, connection: Connection, scope: str) -> None:
        self._connection = connection
        self._scope = scope

    async def allow(self, call: Call, action: str) -> None:
        """Return if the caller may; else raise BusError."""
        action = f"org.linxd1.{action}"
        try:
            (uid,) = await self._connection.call(
                BUS, BUS_PATH, BUS, "GetConnectionUnixUser", "s", [call.sender]
            )
        except (BusError, Unreachable):
            raise BusError(ACCESS_DENIED, f"{action}: nobody can tell who asks") from None
        if uid == 0:
            return
        try:
            ((allowed, challenge, _),) = await self._connection.call(
                POLKIT,
                PATH,
                AUTHORITY,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                [
                    ["system-bus-name", {"name": Variant("s", call.sender)}],
                    action,
                    {"scope": self._scope},
                    _ASK_A_PERSON if call.interactive else 0,
                    "",
                ],
                seconds=PERSON if call.interactive else ANSWER,
                start=True,
            )
        except BusError as error:
            text = f"{action}: only root may, for polkit can't be asked ({error})"
            raise BusError(ACCESS_DENIED, text) from None
        except Unreachable:
            raise BusError(ACCESS_DENIED, f"{action}: polkit does not answer") from None
        if allowed is True:
            return
        if challenge and not call.interactive:
            raise BusError(INTERACTIVE, f"{action}: needs authentication by a person")
        raise BusError(ACCESS_DENIED, f"{action}: not permitted")
