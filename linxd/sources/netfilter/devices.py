# SPDX-License-Identifier: MIT
"""Links that a ruleset speaks of, as far as a scratch namespace has to have them.

A superset will do: a placeholder that nothing hangs on does no harm. It must not know how links are made.
"""

from __future__ import annotations

from linxd.sources.netfilter.syntax import Outline, Token

_PLAIN = frozenset(("{", "}", ",", "=", "\n", ";"))
_MOST = 256
"""Links that one ruleset may hang on."""


def devices(text: Outline) -> tuple[str, ...]:
    """Names after ``device``, ``devices =`` and after ``fwd to`` and ``dup to``, variables resolved.
    Prefixes (``eth*``) are no names."""
    tokens = text.tokens
    defines = _defines(text)
    found: dict[str, None] = {}
    for at, token in enumerate(tokens):
        if token.text in ("device", "devices") or (token.text == "to" and _sends(tokens, at)):
            for word in _value(tokens, at + 1):
                _resolve(word, defines, found, 0)
    return tuple(list(found)[:_MOST])


def indexed_devices(text: Outline) -> tuple[str, ...]:
    """Names after ``fwd to`` and ``dup to`` in a netdev table, which nft turns into interface indices."""
    defines = _defines(text)
    found: dict[str, None] = {}
    for table in text.statements:
        if table.head != "table" or "netdev" not in table.words:
            continue
        inside = text.tokens[table.first : table.last]
        for at, token in enumerate(inside):
            if token.text == "to" and _sends(inside, at):
                for word in _value(inside, at + 1):
                    _resolve(word, defines, found, 0)
    return tuple(found)


def _sends(tokens: list[Token], at: int) -> bool:
    return at > 0 and tokens[at - 1].text in ("fwd", "dup")


def _value(tokens: list[Token], at: int) -> list[str]:
    """The words of what follows: one, or what stands in braces."""
    while at < len(tokens) and tokens[at].text == "=":
        at += 1
    words: list[str] = []
    depth = 0
    while at < len(tokens):
        word = tokens[at].text
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
        elif word not in _PLAIN:
            words.append(word)
        if depth <= 0:
            return words
        at += 1
    return words


def _defines(text: Outline) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in text.walk():
        if one.words[:1] in (("define",), ("redefine",)) and len(one.words) > 1:
            inside = text.tokens[one.first : one.last]
            equals = next((at for at, token in enumerate(inside) if token.text == "="), None)
            if equals is not None:
                value = [token.text for token in inside[equals:] if token.text not in _PLAIN]
                found.setdefault(one.words[1], []).extend(value)
    return found


def _resolve(word: str, defines: dict[str, list[str]], found: dict[str, None], depth: int) -> None:
    if word.startswith("$"):
        if depth < 16:
            for inner in defines.get(word[1:], ()):
                _resolve(inner, defines, found, depth + 1)
        return
    name = word.strip('"')
    # IFNAMSIZ leaves 15 characters
    if name and len(name.encode()) <= 15 and "*" not in name and "/" not in name:
        found[name] = None
