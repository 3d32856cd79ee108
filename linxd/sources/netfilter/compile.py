# SPDX-License-Identifier: MIT
"""From the user's text to the kernel's own form of it: nft loads it in a scratch namespace, and we read it
there.

The same text comes to the same form, which is kept by a hash of everything that it depends on. It must not
know what the real namespace has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from linxd import __version__
from linxd.digest import blake2b
from linxd.netlink.errors import NetlinkError
from linxd.netlink.nft import batch
from linxd.patch import Op, Verb
from linxd.records import dataclass
from linxd.sources.netfilter import devices
from linxd.sources.netfilter.batch import batch_of
from linxd.sources.netfilter.faults import RulesetError, RulesetFault, ScratchError
from linxd.sources.netfilter.flatten import Flat, Read, flatten, read_trusted
from linxd.sources.netfilter.model import Desired
from linxd.sources.netfilter.names import FAMILIES, NFPROTO_NETDEV
from linxd.sources.netfilter.reader import Checkpoint, Moved, Reader, assembled
from linxd.sources.netfilter.refuse import INDEX_HINT, fault_at, index_places, refused
from linxd.sources.netfilter.scratch import Scratch, trouble
from linxd.sources.netfilter.split import Pieces
from linxd.sources.netfilter.state import RULE_INDEX, Chain, Hook, Table, TableId
from linxd.sources.netfilter.syntax import Outline, outline
from linxd.sources.netfilter.things import TableThing

FORMAT = 1
"""Of the files in the cache."""
KEPT = 4
"""Compiled forms kept in memory: what is declared, and what was a moment ago."""
READS = 8
"""Times that a scratch namespace is read of which the kernel says that it changed meanwhile."""
_BUDGET = 165_000
"""Bytes of messages that one text may come to, by estimate, where nft's send buffer is small (208 KiB)."""
_LEAST_BUDGET = 1_000
_LENGTH = struct.Struct("=II")

Texts = Mapping[tuple[TableId, int], str]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the kernel makes of a declaration. ``texts``: rules as nft writes them, by table and handle.

    ``indices``: links whose index stands in rules, and the index. ``late``: the kernel takes names of links
    that are not there yet, and hangs chains on them when they come (Linux 6.16).
    """

    tables: Mapping[TableId, Table]
    texts: Texts
    digest: str
    indices: Mapping[str, int]
    late: bool = True


EMPTY = Compiled({}, {}, "", {})
Index = Callable[[str], int]
"""Interface index of a link in the real namespace, 0 if it is not there."""


class Compiler:
    """Compiles, one declaration at a time.

    ``nft_command``: the words that run nft; they get more. ``cache``: a directory of our own for compiled
    forms, None for memory alone. ``timeout``: seconds that one run of nft may take.
    """

    def __init__(
        self,
        nft_command: Sequence[str] = ("nft",),
        *,
        cache: str | None = None,
        timeout: float = 30.0,
        read: Read = read_trusted,
    ) -> None:
        self._nft = tuple(nft_command)
        self._cache = cache
        self._timeout = timeout
        self._read = read
        self._known: OrderedDict[str, Compiled] = OrderedDict()
        self.runs = 0
        """Scratch namespaces that were needed."""

    async def compile(self, desired: Desired, index: Index, checkpoint: Checkpoint) -> Compiled:
        """The kernel's form of ``desired``. Raises RulesetError; ScratchError when it is not the text's
        fault."""
        flat = await asyncio.to_thread(flatten, desired.rulesets, desired.roots, self._read)
        await checkpoint()
        if "netdev" not in flat.text:
            # No index of a link can be in it; and what was compiled before had no faults.
            digest = self._digest(flat, {})
            found = self._known.get(digest) or await self._stored(digest, {}, checkpoint)
            if found is not None:
                return self._keep(digest, found)
        scratch = Scratch(timeout=self._timeout)
        try:
            if "netdev" not in flat.text:
                await scratch.begin()
            text = await asyncio.to_thread(_outlined, flat)
            await checkpoint()
            if not text.statements:
                return EMPTY
            indices = {name: index(name) for name in devices.indexed_devices(text)}
            for name, number in indices.items():
                if not number:
                    raise trouble(f"link {name} is not there", "fwd and dup bind its index")
            digest = self._digest(flat, indices)
            found = self._known.get(digest) or await self._stored(digest, indices, checkpoint)
            if found is None:
                found = await self._load(scratch, flat, text, digest, indices, checkpoint)
        finally:
            await scratch.close()
        return self._keep(digest, found)

    def _keep(self, digest: str, found: Compiled) -> Compiled:
        self._known[digest] = found
        self._known.move_to_end(digest)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return found

    def _digest(self, flat: Flat, indices: Mapping[str, int]) -> str:
        kernel = os.uname()
        # What is refused before nft sees it is ours to say, and may become more.
        parts = (
            FORMAT,
            __version__,
            self._tool(),
            kernel.release,
            kernel.version,
            sorted(indices.items()),
            flat.text,
        )
        return blake2b(repr(parts).encode(), digest_size=20).hexdigest()

    def _tool(self) -> tuple[object, ...]:
        """What tells one nft from another without running it: the command, and the file's identity."""
        for directory in ["", *os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]:
            with contextlib.suppress(OSError):
                seen = os.stat(os.path.join(directory, self._nft[-1]))
                return (*self._nft, seen.st_size, seen.st_mtime_ns)
        return self._nft

    # --- in the scratch namespace -------------------------------------------------------------------

    async def _load(
        self,
        scratch: Scratch,
        flat: Flat,
        text: Outline,
        digest: str,
        indices: Mapping[str, int],
        checkpoint: Checkpoint,
    ) -> Compiled:
        self.runs += 1
        async with scratch:
            late = await self._placeholders(scratch, text, indices)
            await self._run(scratch, flat, text)
            # nft lists while we read: neither changes anything.
            listing = asyncio.create_task(self._command(scratch, "-s", "-a", "-t", "list", "ruleset"))
            await asyncio.sleep(0)  # it begins
            try:
                messages = await _read(Reader(scratch.tables), checkpoint)
                tables = await assembled(messages, checkpoint)
                listed = await listing
            finally:
                # Where we don't get to the end, its words are of no use, and nobody waits for them.
                listing.cancel()
                await asyncio.gather(listing, return_exceptions=True)
        texts = await asyncio.to_thread(lambda: dict(rule_texts(listed)))
        found = Compiled(tables, texts, digest, indices, late)
        self._judge(flat, text, found)
        await asyncio.to_thread(self._store, digest, messages, listed, late)
        return found

    def _judge(self, flat: Flat, text: Outline, found: Compiled) -> None:
        """What only the outcome shows."""
        faults = refused(flat, text, found.tables)
        indexed = [
            (table, chain)
            for table in found.tables.values()
            for chain in table.chains.values()
            if any(rule.flags & RULE_INDEX for rule in chain.rules)
        ]
        if indexed:
            places = list(index_places(text))
            faults += [fault_at(flat, text, at, "an interface index", INDEX_HINT) for at in places]
            if not places:
                names = ", ".join(f"chain {chain.name} of table {table.words}" for table, chain in indexed)
                faults.append(RulesetFault("", 0, 0, f"{names}: an interface index", hint=INDEX_HINT))
        if faults:
            raise RulesetError(faults)

    async def _placeholders(self, scratch: Scratch, text: Outline, indices: Mapping[str, int]) -> bool:
        found = await asyncio.to_thread(lambda: list(devices.devices(text)))
        named = [name for name in found if name != "lo"]
        late = not named or _takes_missing(scratch)
        for name in named:
            if name in indices:
                scratch.placeholder(name, indices[name])
            elif not late:
                scratch.placeholder(name)
        return late

    async def _run(self, scratch: Scratch, flat: Flat, text: Outline) -> None:
        budget = _BUDGET
        rest = await asyncio.to_thread(Pieces, text)
        piece = text.text if rest.size <= budget else await asyncio.to_thread(rest.take, budget)
        while True:
            done = await scratch.run([*self._nft, "-f", "-"], piece)
            if done.status == 0:
                rest.done()
            elif "Message too long" in done.errors and budget > _LEAST_BUDGET:
                # sent as one message or not at all: nothing of it was loaded
                budget //= 2
            else:
                raise RulesetError(self._faults(flat, text, done.status, done.errors))
            if rest.empty:
                return
            piece = await asyncio.to_thread(rest.take, budget)

    async def _command(self, scratch: Scratch, *words: str) -> str:
        done = await scratch.run([*self._nft, *words])
        if done.status:
            raise trouble(f"nft {' '.join(words)}: {done.errors.strip() or _ending(done.status)}")
        return done.output

    def _faults(self, flat: Flat, text: Outline, status: int, errors: str) -> list[RulesetFault]:
        if status < 0 or status == 127:
            said = errors.strip() if status == 127 else f"nft {_ending(status)}"
            raise trouble(said)
        faults = list(nft_faults(flat, text, errors))
        if not faults:
            raise trouble(errors.strip() or f"nft {_ending(status)}")
        return faults

    # --- on disk ------------------------------------------------------------------------------------

    def _path(self, digest: str) -> str:
        return os.path.join(self._cache or "", f"{digest}.nftc")

    def _store(self, digest: str, messages: Sequence[tuple[int, bytes]], listed: str, late: bool) -> None:
        """Keep the messages as they were dumped: reading them back is what made the form in the first place.
        What can't be kept is compiled again."""
        if self._cache is None:
            return
        data = bytearray(_LENGTH.pack(FORMAT, late))
        for type, payload in [*messages, (0, listed.encode())]:
            data += _LENGTH.pack(type, len(payload)) + payload
        data += blake2b(data, digest_size=16).digest()
        with contextlib.suppress(OSError):
            os.makedirs(self._cache, mode=0o700, exist_ok=True)
            with open(self._path(digest) + ".new", "wb", opener=_private) as file:
                file.write(data)
            os.replace(self._path(digest) + ".new", self._path(digest))
            self._sweep()

    def _sweep(self) -> None:
        """Of old forms the newest few are kept."""
        assert self._cache is not None
        files = [entry for entry in os.scandir(self._cache) if entry.name.endswith(".nftc")]
        for entry in sorted(files, key=lambda entry: entry.stat().st_mtime_ns)[:-KEPT]:
            os.unlink(entry.path)

    async def _stored(
        self, digest: str, indices: Mapping[str, int], checkpoint: Checkpoint
    ) -> Compiled | None:
        if self._cache is None:
            return None
        try:
            with open(self._path(digest), "rb") as file:
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    return None
                data = file.read()
        except OSError:
            return None
        body, sum = data[:-16], data[-16:]
        if blake2b(body, digest_size=16).digest() != sum:
            return None
        version, late = _LENGTH.unpack_from(body, 0)
        messages = []
        at = _LENGTH.size
        listed = ""
        while at < len(body):
            type, length = _LENGTH.unpack_from(body, at)
            at += _LENGTH.size
            if type:
                messages.append((type, body[at : at + length]))
            else:
                listed = body[at : at + length].decode()
            at += length
        if version != FORMAT:
            return None
        texts = await asyncio.to_thread(lambda: dict(rule_texts(listed)))
        return Compiled(await assembled(messages, checkpoint), texts, digest, indices, bool(late))


async def _read(reader: Reader, checkpoint: Checkpoint) -> list[tuple[int, bytes]]:
    """Everything in a scratch namespace. Raises ScratchError."""
    why = ""
    for _ in range(READS):
        try:
            return await reader.messages(reader.heads(), checkpoint)
        except Moved as error:
            # Nobody else is there, so the next time it will hold still.
            why = str(error)
        except NetlinkError as error:
            why = str(error)
            break
    raise trouble(f"the scratch namespace could not be read: {why}")


def _outlined(flat: Flat) -> Outline:
    text = outline(flat.text)
    faults = refused(flat, text)
    if faults:
        raise RulesetError(faults)
    return text


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ending(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with {status}"


def _takes_missing(scratch: Scratch) -> bool:
    """Whether a chain may hang on a link that is not there."""
    hook = Hook(0, 0, ("linxd-none",))
    probe = Table(NFPROTO_NETDEV, "linxd probe", 0, chains={"c": Chain("c", 0, "filter", hook, 1)})
    make, gone = Op(Verb.CREATE, TableThing(probe), None), Op(Verb.DELETE, None, TableThing(probe))
    try:
        if any(scratch.tables.transact(batch(None, batch_of([make]).messages))):
            return False
        scratch.tables.transact(batch(None, batch_of([gone]).messages))
    except NetlinkError as error:
        raise trouble(f"the scratch namespace does not answer: {error}") from None
    return True


# --- what nft says ----------------------------------------------------------------------------------

_ERROR = re.compile(r"^(?:/dev/stdin|-|<stdin>):(\d+):(\d+)-\d+: Error: (.*)$")
_HANDLE = re.compile(r"^(.*) # handle (\d+)$")
_TABLE = re.compile(r"^table (\w+) (\S+) \{")


def nft_faults(flat: Flat, text: Outline, errors: str) -> Iterator[RulesetFault]:
    """nft's complaints at the user's own lines. One that names no place is given as it is."""
    indexed = {text.line_of(at): at for at in index_places(text)}
    for line in errors.splitlines():
        match = _ERROR.match(line)
        if match is None:
            if line.startswith(("Error: ", "netlink: Error: ", "internal:0:0-0: Error: ")):
                yield RulesetFault("", 0, 0, "nft: " + line.partition("Error: ")[2])
            continue
        number, column = int(match[1]) - 1, int(match[2])
        if not 0 <= number < len(text.lines):
            yield RulesetFault("", 0, 0, "nft: " + match[3])
            continue
        if number in indexed:
            yield fault_at(flat, text, indexed[number], match[3], INDEX_HINT)
        else:
            yield fault_at(flat, text, text.lines[number] + column - 1, match[3])


def rule_texts(listed: str) -> Iterator[tuple[tuple[TableId, int], str]]:
    """Rules in the output of ``nft -s -a -t list ruleset``: (table, handle) and text."""
    where: TableId | None = None
    inside = ""
    part: list[str] = []
    for line in listed.splitlines():
        if not line:
            continue
        if not line.startswith("\t"):
            match = _TABLE.match(line)
            where = (FAMILIES.get(match[1], 0), match[2]) if match else None
        elif not line.startswith("\t\t"):
            inside = line.split()[0] if line.split() else ""
            part = []
        elif inside == "chain" and where is not None:
            match = _HANDLE.match(line)
            part.append((match[1] if match else line).strip())
            if match:
                # what stands in the chain's head has no handle, and ends with a policy or a comment
                yield (where, int(match[2])), " ".join(part)
                part = []
            elif _is_head(part[0]):
                part = []


def _is_head(line: str) -> bool:
    return line.startswith(("type ", "comment ", "policy ", "flags "))


__all__ = ["EMPTY", "Compiled", "Compiler", "Index", "ScratchError", "nft_faults", "rule_texts"]
