# SPDX-License-Identifier: MIT
"""The bus, with our names on it, for as long as the process lives: there, gone, and there again.

What is asked of us, and what there is to say, is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from linxd.bus.library import Message, MessageFlag, MessageType, SignatureTree, Unmarshaller, Variant
from linxd.bus.wire import LONGEST_CALL, LONGEST_SIGNAL, Frame, Wire, connected
from linxd.records import dataclass

__all__ = ["BusError", "Call", "Connection", "Heard", "Unreachable", "Variant", "system_bus"]

log = logging.getLogger(__name__)

BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
PATIENCE = 5.0
"""Seconds within which the bus has to let us in. One that has enough connections never answers."""
ANSWER = 25.0
"""Seconds within which others answer."""
AGAIN_FIRST, AGAIN_LAST = 0.1, 30.0
"""Seconds until it is tried again."""
LARGE = 200
"""Values in an answer from which on its bytes are made in a thread."""
SIGNATURES = 256
"""Signatures that the library may remember: it keeps each one that anybody ever sent, 10 kB apiece."""

AWAY = frozenset(
    f"{BUS}.Error.{name}"
    for name in ("Disconnected", "LimitsExceeded", "NameHasNoOwner", "NoReply", "ServiceUnknown", "Timeout")
)
"""What the bus answers in the place of somebody who is not there, as systemd while it executes itself
anew."""
_PRIMARY, _QUEUED, _ALREADY = 1, 2, 4


def system_bus() -> str:
    """The address of the system bus."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"


class Unreachable(Exception):  # noqa: N818 - a fact
    """There is no bus, or nobody answered in time."""


class BusError(Exception):
    """An answer that is an error. ``name`` as org.freedesktop.DBus.Error.AccessDenied; the text is for
    people."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True, slots=True)
class Call:
    """Somebody calls us. ``sender`` is their unique name. ``interactive``: a person may be asked to allow
    it. ``cut``: the arguments were too long to be looked at."""

    sender: str
    path: str
    interface: str
    member: str
    signature: str
    body: Sequence[Any]
    interactive: bool
    answered: bool
    """Whether they want an answer."""
    cut: bool
    serial: int
    wire: Wire | None = None
    """Where it came from, and alone its answer goes to: on another bus its sender is somebody else."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A signal of somebody else's."""

    sender: str
    path: str
    interface: str
    member: str
    body: Sequence[Any]


class Connection:
    """Has ``names`` on the bus at ``address``, and comes back when the bus does.

    ``called`` and ``heard`` are told what comes; ``say`` what there is to say of the bus, once each time it
    changes; ``opened`` is called each time we are there anew. ``rules``: what of others' signals is wanted.
    """

    def __init__(
        self,
        address: str,
        *,
        names: Sequence[str] = (),
        rules: Sequence[str] = (),
        called: Callable[[Call], None] | None = None,
        heard: Callable[[Heard], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self.names = tuple(names)
        self.up = asyncio.Event()
        """Set while we are on the bus with our names."""
        self.unique = ""
        """Our unique name there."""
        self._rules = tuple(rules)
        self._called = called
        self._heard = heard
        self._say = say
        self._opened = opened
        self._said = ""
        self._wire: Wire | None = None
        self._serials = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Message], str]] = {}
        """Calls of ours by their serials, each with whoever alone may answer it; "" where only the bus knows
        who that is."""
        self._lost = asyncio.Event()
        self._why = ""
        self._making: set[asyncio.Task[None]] = set()

    # -- there, gone, there again ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Be there until cancelled."""
        pause = AGAIN_FIRST
        try:
            while True:
                try:
                    await self.open()
                except (OSError, ValueError, Unreachable, BusError) as error:
                    text = getattr(error, "strerror", None) or str(error)
                    self._tell(f"no bus: {text}")
                else:
                    pause = AGAIN_FIRST
                    self._tell("")
                    await self._lost.wait()
                    self._tell(f"no bus: {self._why}")
                self.close()
                await asyncio.sleep(pause * (1 + os.urandom(1)[0] / 1024))
                pause = min(2 * pause, AGAIN_LAST)
        finally:
            self.close()

    async def open(self) -> None:
        """Be there, once. Raises OSError, ValueError, Unreachable, BusError."""
        self.close()
        try:
            async with asyncio.timeout(PATIENCE):
                sock = await connected(self.address)
                self._lost.clear()
                longest = LONGEST_CALL if self.names else LONGEST_SIGNAL
                self._wire = Wire(sock, self._received, self._gone, longest=longest)
                self.unique = str((await self._ask("Hello"))[0])
                for rule in self._rules:
                    await self._ask("AddMatch", "s", [rule])
                for name in self.names:
                    await self._own(name)
        except TimeoutError:
            self.close()
            raise Unreachable("the bus does not answer") from None
        except BaseException:
            self.close()
            raise
        self.up.set()
        self._opened()

    def close(self) -> None:
        """Be there no more."""
        self.up.clear()
        self.unique = ""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._forget("the bus is gone")

    async def _own(self, name: str) -> None:
        # Queued for: the one who has it may be our predecessor on its way out.
        (answer,) = await self._ask("RequestName", "su", [name, 0])
        if answer == _QUEUED:
            log.debug("%s is owned by another; waiting for it", name)

    async def _ask(self, member: str, signature: str = "", body: Sequence[Any] = ()) -> Sequence[Any]:
        return await self.call(BUS, BUS_PATH, BUS, member, signature, body)

    def _gone(self, why: str) -> None:
        self._why = why
        self.up.clear()
        self._wire = None
        self._lost.set()
        self._forget(why)

    def _forget(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(Unreachable(why))

    def _tell(self, text: str) -> None:
        if text != self._said:
            before, self._said = self._said, text
            self._say(text or (before and "the bus is back"))

    # -- said -----------------------------------------------------------------------------------------------

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        seconds: float = ANSWER,
        interactive: bool = False,
        start: bool = False,
    ) -> Sequence[Any]:
        """Call somebody and return the answer. ``start``: start them if they are not there.

        Raises BusError, Unreachable.
        """
        flags = MessageFlag.NONE if start else MessageFlag.NO_AUTOSTART
        if interactive:
            flags |= MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
        if self._wire is None:
            raise Unreachable("there is no bus")
        serial = self._serial()
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            flags=flags,
            serial=serial,
        )
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        known = destination == BUS or destination.startswith(":")
        self._waiting[serial] = future, destination if known else ""
        try:
            self._wire.send(_bytes(message))
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError:
            raise Unreachable(f"{destination} does not answer") from None
        finally:
            self._waiting.pop(serial, None)
        if answer.message_type is MessageType.ERROR:
            text = answer.body[0] if answer.body and isinstance(answer.body[0], str) else answer.error_name
            raise BusError(str(answer.error_name), str(text))
        body = answer.body
        return list(body)

    def signal(
        self, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> None:
        """Tell everybody who listens. Where there is no bus nobody does."""
        # As soon as the bus knows us: whoever sees our name may be there before we hear that it is ours.
        if self.unique and self._wire is not None:
            message = Message.new_signal(path, interface, member, signature, list(body))
            message.serial = self._serial()
            self._wire.send(_bytes(message))

    def answer(self, call: Call, signature: str, body: Sequence[Any], *, size: int = 0) -> None:
        """Answer a call. ``size``: how many values there are in it, about; the bytes of a large answer are
        made in a thread."""
        if not call.answered:
            return
        message = Message(
            message_type=MessageType.METHOD_RETURN,
            destination=call.sender,
            reply_serial=call.serial,
            signature=signature,
            body=list(body),
            serial=self._serial(),
        )
        if size < LARGE:
            self._send(call.wire, _bytes(message))
            return
        task = asyncio.create_task(self._make(call.wire, message))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    def refuse(self, call: Call, name: str, text: str) -> None:
        """Answer a call with an error."""
        if call.answered:
            message = Message(
                message_type=MessageType.ERROR,
                destination=call.sender,
                reply_serial=call.serial,
                error_name=name,
                signature="s",
                body=[text],
                serial=self._serial(),
            )
            self._send(call.wire, _bytes(message))

    async def _make(self, wire: Wire | None, message: Message) -> None:
        self._send(wire, await asyncio.to_thread(_bytes, message))

    @staticmethod
    def _send(wire: Wire | None, data: bytes) -> None:
        if wire is not None:
            wire.send(data)

    def _serial(self) -> int:
        serial = next(self._serials)
        if serial >= 1 << 32:
            self._serials = itertools.count(2)
            serial = 1
        return serial

    # -- heard ----------------------------------------------------------------------------------------------

    def _received(self, frame: Frame) -> None:
        message = _message(frame.data)
        if message is None:
            # Its arguments are nonsense; whoever sent it is told so, and nobody else is worse off.
            body_less = bytearray(frame.data)
            body_less[4:8] = bytes(4)
            message = _message(bytes(body_less))
            if message is not None and message.message_type is MessageType.METHOD_CALL:
                call = _call(message, self._wire, cut=False)
                self.refuse(call, f"{BUS}.Error.InvalidArgs", "the arguments can't be read")
            return
        if message.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR):
            future, who = self._waiting.get(message.reply_serial, (None, ""))
            # The bus itself says that whoever was asked has gone.
            if future is not None and not future.done() and (who == "" or message.sender in (who, BUS)):
                if frame.cut:
                    future.set_exception(Unreachable("the answer is too long"))
                else:
                    future.set_result(message)
            return
        with contextlib.suppress(asyncio.CancelledError):
            self._pass_on(message, cut=frame.cut)

    def _pass_on(self, message: Message, *, cut: bool) -> None:
        try:
            if message.message_type is MessageType.SIGNAL:
                if self._heard is not None and not cut:
                    self._heard(
                        Heard(
                            message.sender or "",
                            message.path,
                            message.interface,
                            message.member,
                            message.body,
                        )
                    )
            elif self._called is not None:
                self._called(_call(message, self._wire, cut=cut))
            else:
                self.refuse(
                    _call(message, self._wire, cut=cut),
                    f"{BUS}.Error.UnknownObject",
                    "there is nothing here",
                )
        except Exception:
            log.debug("a message was lost", exc_info=True)


def _call(message: Message, wire: Wire | None, *, cut: bool) -> Call:
    return Call(
        sender=message.sender or "",
        path=message.path,
        interface=message.interface or "",
        member=message.member,
        signature=message.signature,
        body=message.body,
        interactive=bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
        answered=not message.flags & MessageFlag.NO_REPLY_EXPECTED,
        cut=cut,
        serial=message.serial,
        wire=wire,
    )


def _bytes(message: Any) -> bytes:
    return bytes(message._marshall())


def _message(data: bytes) -> Message | None:
    """The message in a frame; None where it can't be made out."""
    unmarshaller: Any = Unmarshaller
    if len(SignatureTree._cache) > SIGNATURES:
        SignatureTree._cache.clear()
    try:
        message = unmarshaller(io.BytesIO(data)).unmarshall()
    except Exception:
        # Whatever the library trips over must not end the connection.
        log.debug("a message can't be read", exc_info=True)
        return None
    return message if isinstance(message, Message) else None
