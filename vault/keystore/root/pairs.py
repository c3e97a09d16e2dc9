"""Root-key providers over two others: a composite of both, and a move from one to the other.

The composite has each provider wrap one of two XOR shares, so destroying either half destroys the version.

The tags of both halves begin with the same eight random bytes, which pair them again when versions are listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from vault.errors import Destroyed, FormatError, Invalid, Unavailable, VaultError
from vault.format.codec import fields, pack, unpack
from vault.keystore.root.common import TAG_MAX_BYTES, RootKeys, check_key, finding, foreign, tampered, xor
from vault.model import Assurance, Finding
from vault.ports.keys import DestroyReceipt, VersionInfo
from vault.ports.time import Entropy

_RISING: Final = (Assurance.BEST_EFFORT, Assurance.DELAYED, Assurance.DEVICE, Assurance.HSM)


def stronger(one: Assurance, other: Assurance) -> Assurance:
    """Return the one that promises more."""
    return max(one, other, key=_RISING.index)


def weaker(one: Assurance, other: Assurance) -> Assurance:
    """Return the one that promises less."""
    return min(one, other, key=_RISING.index)


_PAIR_BYTES: Final = 8
_VERSION: Final = re.compile(r"composite:([^+]*)\+([^+]*)")

_T = TypeVar("_T")


class CompositeRootKeys:
    """Two providers as one.

    A share alone is 32 random bytes that reveal nothing about the key. So a shred is real if one provider truly
    deletes, whatever the other keeps, and the assurance is the better of the two. If either store is lost, every
    recording is lost.
    """

    def __init__(self, first: RootKeys, second: RootKeys, *, entropy: Entropy = os.urandom) -> None:
        self.name = f"{first.name}+{second.name}"
        self.assurance = stronger(first.assurance, second.assurance)
        self._halves = (first, second)
        self._entropy = entropy

    async def create(self) -> str:
        """Make both stores."""
        first, second = self._halves
        return f"{await first.create()}; {await second.create()}; both are needed to read"

    async def owns(self, version: str) -> bool:
        """Tell whether these two stores made the version's halves."""
        halves = self._named(version)
        return bool(halves) and all([await half.owns(name) for half, name in halves])

    async def new_version(self, tag: bytes) -> str:
        """Create a version at both; a crash or an outage between leaves a half, which is listed and destroyed."""
        if len(tag) > TAG_MAX_BYTES - _PAIR_BYTES:
            raise Invalid(f"a root version's tag is at most {TAG_MAX_BYTES - _PAIR_BYTES} bytes")
        paired = self._entropy(_PAIR_BYTES) + tag
        first, second = self._halves
        return _joined(await first.new_version(paired), await second.new_version(paired))

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Wrap a fresh random share at the first, and the key XOR that share at the second."""
        check_key(key)
        share, once = self._entropy(len(key)), self._entropy(_PAIR_BYTES)
        first, second = self._both(version)
        one = await self._halves[0].wrap(first, share, _place(once, aad))
        two = await self._halves[1].wrap(second, xor(key, share), _place(once, aad))
        return pack({"once": once, "first": one, "second": two})

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Unwrap both shares.

        Destroyed as soon as one provider says so, even while the other does not answer: one share alone opens nothing.
        Unavailable outranks Tampered: the provider that does not answer may have destroyed its half.
        """
        first, second = self._both(version)
        try:
            once, one, two = fields(unpack(blob), once=bytes, first=bytes, second=bytes)
        except FormatError:
            once = one = two = b""
        place = _place(once, aad)
        shares = await _each(
            [lambda: self._halves[0].unwrap(first, one, place), lambda: self._halves[1].unwrap(second, two, place)]
        )
        if len(shares[0]) != len(shares[1]):
            raise tampered(version)
        return xor(*shares)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Destroy both halves; succeeds when both providers confirm, and tries the second even if the first fails."""
        calls = [_bound(half.destroy, name) for half, name in self._named(version)]
        if not calls:
            raise foreign(version)
        receipts = await _each(calls)
        return DestroyReceipt(version=version, effective_at=max(receipt.effective_at for receipt in receipts))

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the pairs, and every single half, which waits to be destroyed."""
        pairs: dict[bytes, list[VersionInfo | None]] = {}
        for place, half in enumerate(self._halves):
            for info in (await half.versions()).values():
                pair = pairs.setdefault(info.tag[:_PAIR_BYTES], [None, None])
                if pair[place] is not None:
                    raise Unavailable(f"two versions of {half.name} claim one pair; nothing is known to be lost")
                pair[place] = info
        return {info.version: info for info in map(_paired, pairs.values())}

    async def self_check(self) -> Sequence[Finding]:
        """Return both providers' findings."""
        first, second = self._halves
        return (*await first.self_check(), *await second.self_check())

    def _named(self, version: str) -> list[tuple[RootKeys, str]]:
        """Return the halves that a version names: two, a single one, or none if it names no pair."""
        match = _VERSION.fullmatch(version)
        return [
            (half, name) for half, name in zip(self._halves, match.groups() if match else ("", ""), strict=True) if name
        ]

    def _both(self, version: str) -> tuple[str, str]:
        names = [name for _, name in self._named(version)]
        if not names:
            raise foreign(version)
        if len(names) != len(self._halves):
            raise Destroyed(f"one half of root version {version} was destroyed")
        return names[0], names[1]


def _place(once: bytes, aad: bytes) -> bytes:
    """Return the associated data of both shares of one wrap; shares of two wraps do not open together."""
    return pack([once, aad])


def _joined(first: str, second: str) -> str:
    return f"composite:{first}+{second}"


def _paired(pair: Sequence[VersionInfo | None]) -> VersionInfo:
    first, second = pair
    info = first or second
    assert info is not None
    return VersionInfo(
        version=_joined(first.version if first else "", second.version if second else ""),
        tag=info.tag[_PAIR_BYTES:],
        created_at=info.created_at,
    )


def _bound(call: Callable[[str], Awaitable[_T]], name: str) -> Callable[[], Awaitable[_T]]:
    return lambda: call(name)


async def _each(calls: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
    """Return every call's result; all are tried, and the gravest error is raised: Destroyed, Unavailable, others."""
    results: list[_T] = []
    errors: list[VaultError] = []
    for call in calls:
        try:
            results.append(await call())
        except VaultError as error:
            errors.append(error)
    for kind in (Destroyed, Unavailable, VaultError):
        for failed in errors:
            if isinstance(failed, kind):
                raise failed
    return results


class MovingRootKeys:
    """The current provider, and the previous one for the versions that it made.

    While both are configured the assurance is the weaker one: a certificate may attest a version that was destroyed at
    the previous provider.
    """

    def __init__(self, current: RootKeys, *, previous: RootKeys) -> None:
        self.name = f"{current.name} or {previous.name}"
        self.assurance = weaker(current.assurance, previous.assurance)
        self._current = current
        self._previous = previous

    async def create(self) -> str:
        """Make the current provider's store; the previous one exists."""
        return await self._current.create()

    async def owns(self, version: str) -> bool:
        """Tell whether either made the version."""
        return await self._current.owns(version) or await self._previous.owns(version)

    async def new_version(self, tag: bytes) -> str:
        """Create a version at the current provider."""
        return await self._current.new_version(tag)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version, where it is."""
        return await (await self._owner(version)).wrap(version, key, aad)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt where the version is."""
        return await (await self._owner(version)).unwrap(version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Destroy the version where it is."""
        return await (await self._owner(version)).destroy(version)

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions of both; Unavailable if either cannot answer."""
        return {**await self._previous.versions(), **await self._current.versions()}

    async def self_check(self) -> Sequence[Finding]:
        """Return both providers' findings, and whether the previous one is still needed."""
        found = (*await self._current.self_check(), *await self._previous.self_check())
        try:
            left = len(await self._previous.versions())
        except VaultError as error:
            return (*found, finding("error", f"the previous provider cannot be left: {error.message}", error.hint))
        if left:
            text = f"{left} root version(s) are still at the previous provider ({self._previous.name})"
            return (*found, finding("warning", text, "move the vault: callvault keys rotate"))
        text = f"nothing is left at the previous provider ({self._previous.name})"
        return (*found, finding("ok", text, "remove [keyring.previous_root] and restart"))

    async def _owner(self, version: str) -> RootKeys:
        for provider in (self._current, self._previous):
            if await provider.owns(version):
                return provider
        raise foreign(version)
