"""How much one holder (a tenant or a token) may use at once, and which waiting upload ends first to make room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from vault.access.shares import Ruling, decide_share, fair_share, holders_above_share
from vault.errors import Crowded, OverShare, Unavailable
from vault.ids import TenantId
from vault.ports.time import Clock
from vault.services.ingest.sessions import IngestSession
from vault.telemetry import Metrics

# -- slots and shares ---------------------------------------------------------------------------------------------

OPERATORS: Final = ""
"""The holder of uses that belong to no tenant."""
_RETRY_SECONDS: Final = 5
_LATE_SECONDS: Final = 2.0
"""How many seconds after its retry time a refused holder still finds its room reserved."""


class _Taken(ABC):
    """Counts what each holder uses; refusals change nothing."""

    def __init__(self) -> None:
        self.uses: Counter[str] = Counter()
        """What each holder uses; a holder that uses nothing has no entry."""

    @abstractmethod
    def require(self, holder: str, size: int = 1) -> None:
        """Raise unless the holder may use so much more now."""

    def take(self, holder: str, size: int = 1) -> None:
        """Use so much more; raises as `require`, and then nothing changes."""
        self.require(holder, size)
        self.uses[holder] += size

    def give(self, holder: str, size: int = 1) -> None:
        """Give so much back."""
        self.uses[holder] -= size
        if not self.uses[holder]:
            del self.uses[holder]

    @contextmanager
    def taken(self, holder: str) -> Iterator[None]:
        """Use one inside the context; raises as `require`."""
        self.take(holder)
        try:
            yield
        finally:
            self.give(holder)


class Slots(_Taken):
    """At most `each` at once of one kind of work for one holder, such as a token; Crowded beyond that."""

    def __init__(self, each: int, *, what: str) -> None:
        super().__init__()
        self._each = each
        self._what = what

    def require(self, holder: str, size: int = 1) -> None:
        """Raise Crowded unless the holder may have so much more now."""
        if self.uses[holder] + size > self._each:
            raise Crowded(
                f"too many {self._what} for this token at once (limit {self._each})",
                hint="let one end, or try again later",
                retry_after_seconds=_RETRY_SECONDS,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A shared resource, with its words for a refusal."""

    name: str
    """The label in metrics."""
    what: str
    full: str
    """The message if there is no room."""
    hint: str | None = None
    retry_after_seconds: int = _RETRY_SECONDS


class Shares(_Taken):
    """One resource of this process, shared max-min by `vault.access.shares`: a share binds only while others wait.

    A refused holder counts as waiting until a little after its retry time. Room that is freed meanwhile is reserved for
    it, up to its share.
    """

    def __init__(self, capacity: int, resource: Resource, *, clock: Clock, metrics: Metrics) -> None:
        super().__init__()
        self._capacity = capacity
        self._resource = resource
        self._clock = clock
        self._waiting: dict[str, tuple[float, int]] = {}
        """For each refused holder, until when it waits and for how much; the one refused longest ago comes first."""
        self._total = 0
        self._refused = metrics.share_refused
        self._displaced = metrics.share_displaced.labels(resource.name)
        metrics.share_capacity.labels(resource.name).set(capacity)
        metrics.share_used.labels(resource.name).set_function(lambda: self._total)
        metrics.share_waiting.labels(resource.name).set_function(lambda: len(self._line()))

    def _line(self) -> Sequence[str]:
        if self._waiting:
            now = self._clock.monotonic()
            self._waiting = {each: (until, size) for each, (until, size) in self._waiting.items() if until > now}
        return tuple(self._waiting)

    def require(self, holder: str, size: int = 1) -> None:
        """Raise Unavailable unless the holder may have so much more now; OverShare if others wait.

        A refused holder then waits.
        """
        if not self._waiting and self._total + size <= self._capacity:
            return
        line = self._line()
        ruling = decide_share(self._capacity, self.uses, line, holder, size)
        if ruling is Ruling.ADMITTED:
            return
        resource = self._resource
        self._refused.labels(resource.name, ruling.value).inc()
        if size <= self._capacity:  # a larger request never fits, so it does not wait
            self._waiting[holder] = (self._clock.monotonic() + resource.retry_after_seconds + _LATE_SECONDS, size)
        if ruling is Ruling.FULL:
            raise Unavailable(resource.full, hint=resource.hint, retry_after_seconds=resource.retry_after_seconds)
        share = fair_share(self._capacity, self.uses, {*line, holder})
        raise OverShare(
            f"others wait for {resource.what}, and your share is {share} of {self._capacity} until they have theirs",
            hint="let something of yours end, or try again later: a share binds only while others wait, and what was "
            "acknowledged is safe",
            retry_after_seconds=resource.retry_after_seconds,
        )

    def take(self, holder: str, size: int = 1) -> None:
        """Use so much more; raises as `require`, and then nothing changes but the line."""
        super().take(holder, size)
        self._total += size
        if holder in self._waiting:  # its further requests wait behind the holders that got nothing
            self._waiting[holder] = self._waiting.pop(holder)

    def count(self, holder: str, size: int = 1) -> None:
        """Count what existed before this process began, even beyond the capacity."""
        self.uses[holder] += size
        self._total += size

    def give(self, holder: str, size: int = 1) -> None:
        """Give so much back."""
        super().give(holder, size)
        self._total -= size

    def over(self, holder: str) -> Sequence[str]:
        """Return the holders above their share, the largest first, if `holder` is below its own and finds no room."""
        if self._total < self._capacity:
            return ()
        return holders_above_share(self._capacity, self.uses, self._line(), holder)

    def crowding(self) -> Sequence[str]:
        """Return the holders above their share, the largest first, while one waits for room within its own share."""
        line = self._line()
        for each in line:
            size = self._waiting[each][1]
            if self._total + size > self._capacity and (
                above := holders_above_share(self._capacity, self.uses, line, each, wanted=size)
            ):
                return above
        return ()

    def displaced(self) -> None:
        """Count a displaced use of a holder that `over` or `crowding` returned."""
        self._displaced.inc()


# -- waiting uploads ----------------------------------------------------------------------------------------------

_UNHEARD_SECONDS: Final = 5.0
"""An upload counts as being sent until it has had no request for this many seconds."""


class Waiting:
    """Sessions without a request, in the order in which their requests ended; finding the first takes constant time."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._empty: dict[TenantId, dict[IngestSession, float]] = {}
        self._begun: dict[TenantId, dict[IngestSession, float]] = {}

    def add(self, session: IngestSession) -> None:
        """Add a session whose request has ended: it waits unless another request sends it or it has ended."""
        if session.uploads or session.arriving or session.leaving:
            return
        # An upload in parts without a byte counts as begun: its client would not begin it again for a refused part.
        left = self._empty if session.empty and session.owner is None else self._begun
        left.setdefault(session.recording.tenant, {})[session] = self._clock.monotonic()

    def discard(self, session: IngestSession) -> None:
        """Remove a session that is sent again, or ends; a second call changes nothing."""
        tenant = session.recording.tenant
        for left in (self._empty, self._begun):
            if tenant in left:
                left[tenant].pop(session, None)
                if not left[tenant]:
                    del left[tenant]

    def least(self, tenant: TenantId) -> IngestSession | None:
        """Return the upload of the tenant to end first: an empty one, else the one left longest ago."""
        for left, patience in ((self._empty, 0.0), (self._begun, _UNHEARD_SECONDS)):
            for session, since in left.get(tenant, {}).items():
                if since <= self._clock.monotonic() - patience:
                    return session
                break
        return None
