"""Group commit: acts submitted while a commit is under way share the next one, and its single fsync.

A batch is one transaction. Acts of one kind run as one call. The order between kinds is free, because no act in a batch
was acknowledged before. An impossible act is refused alone. If it had already written, or failed unexpectedly, the
batch is rolled back and each act is repeated in its own transaction.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, ProgrammingError, StatementError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from vault.certificates.audit_chain import AuditHead, extend_chain
from vault.errors import (
    ConfigError,
    Conflict,
    DiskFull,
    IntegrityError,
    Invalid,
    OutcomeUnknown,
    Refused,
    Unavailable,
    VaultError,
)
from vault.model import AuditEntry, AuditEvent
from vault.ports.repeats import Keyed, effects
from vault.ports.time import Clock
from vault.storage.catalog import rows
from vault.storage.catalog.tables import (
    audit,
    audit_head,
    audit_hours,
    keyed_requests,
    live_counts,
    measured_days,
    recording_counts,
)
from vault.telemetry import Metrics

# -- what an error of a database means ----------------------------------------------------------------------------

_CORRUPT = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_ONE_ACT_ONLY = (ConstraintError, DataError, InterfaceError, ProgrammingError)

# SQLSTATE codes and their classes (PostgreSQL, appendix A).
_DATA, _CONSTRAINT = "22", "23"
_ONE_ACT_CLASSES = (_DATA, _CONSTRAINT, "42")
_DEFINITE_CLASSES = (*_ONE_ACT_CLASSES, "25", "40", "53")
_DISK_FULL = "53100"
_LOCKED = "55P03"
_DAMAGED = ("XX001", "XX002")
NO_CATALOG = (
    "a catalog that was lost comes from a backup: callvault backup restore DEST; a new vault from callvault init"
)
_NO_SCHEMA = ("42P01", "42703", "3F000")


def is_broken(error: Exception) -> bool:
    """Tell whether the connection itself is gone; all other errors came over a working connection."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated)


def is_outage(error: Exception) -> bool:
    """Tell whether the database as a whole failed; other errors belong to one act that contradicts its rows."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | TimeoutError | PoolTimeout | Unavailable)
    if is_broken(error):
        return True
    if code := _sqlstate(error):
        return not code.startswith(_ONE_ACT_CLASSES)
    return not isinstance(error, _ONE_ACT_ONLY)


def is_locked(error: Exception) -> bool:
    """Tell whether a lock was not free in time."""
    return isinstance(error, DBAPIError) and _sqlstate(error) == _LOCKED


def is_doubtful(error: Exception, dialect: str) -> bool:
    """Tell whether a commit that ended with `error` may have taken effect; a local file always knows."""
    if dialect == "sqlite":
        return False
    return not (isinstance(error, DBAPIError) and _sqlstate(error).startswith(_DEFINITE_CLASSES))


def translate(error: Exception) -> Exception:
    """Return the vault's error for a failed statement or commit; other errors come back unchanged.

    The driver's text may quote values, so it is never repeated.
    """
    if isinstance(error, VaultError):
        return error
    if isinstance(error, DBAPIError):
        return _translate_driver(error)
    if isinstance(error, PoolTimeout):
        return Unavailable("every catalog connection is busy", cause="catalog")
    if isinstance(error, OSError | TimeoutError):
        return Unavailable("the catalog's database does not answer; nothing was changed", cause="catalog")
    if isinstance(error, StatementError) and isinstance(error.orig, VaultError):
        return error.orig
    return error


def _translate_driver(error: DBAPIError) -> VaultError:
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    code = _sqlstate(error)
    text = str(error.orig).lower()
    if isinstance(error, ConstraintError) or code.startswith(_CONSTRAINT):
        return Conflict("the row contradicts another row of the catalog; nothing was changed")
    if code.startswith(_DATA):
        return Invalid("the catalog cannot store one of the values; nothing was changed")
    if name.startswith("SQLITE_FULL") or code == _DISK_FULL or "disk is full" in text:
        text = "the catalog's file system is full; nothing was changed"
        return DiskFull(text, hint="free space, then retry", cause="catalog")
    if name.startswith(_CORRUPT) or code in _DAMAGED or "malformed" in text or "not a database" in text:
        return IntegrityError(
            "the catalog's file is damaged; no row was returned", hint="restore the catalog from a backup"
        )
    if code in _NO_SCHEMA or "no such table" in text or "no such column" in text:
        return ConfigError("catalog: the database has no usable schema", hint=NO_CATALOG)
    return Unavailable("the catalog's database cannot answer now; nothing was changed", cause="catalog")


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


# -- transactions, and the group commit ---------------------------------------------------------------------------

_BATCH_ACTS = 256
_ROWS_A_STATEMENT = 256
_KEY_BYTES = 16

_HEAD = sa.select(audit_head.c.seq, audit_head.c.sha256)
_MOVE_HEAD = (
    sa.update(audit_head)
    .where(audit_head.c.seq == sa.bindparam("old_seq"), audit_head.c.sha256 == sa.bindparam("old_sha256"))
    .values(seq=sa.bindparam("new_seq"), sha256=sa.bindparam("new_sha256"))
)
_INSERT_AUDIT = sa.insert(audit)
_HOUR = sa.select(audit_hours.c.hour).order_by(audit_hours.c.first.desc()).limit(1)
_INSERT_HOUR = sa.insert(audit_hours)
_ENTRY = sa.select(audit.c.sha256).where(audit.c.seq == sa.bindparam("place"))
_k = keyed_requests.c
_NOTE = (
    sa.update(keyed_requests)
    .where(
        _k.token == sa.bindparam("its_token"),
        _k.key == sa.bindparam("its_key"),
        _k.attempt == sa.bindparam("its_attempt"),
        _k.status.is_(None),
    )
    .values(effect=True, target=sa.func.coalesce(_k.target, sa.bindparam("new_target", type_=sa.Text)))
)


def _widen(dialect: Any, least: str, most: str) -> sa.Executable:
    """Return the statement that inserts the bounds of a day, or widens them; it writes nothing where they are."""
    new = dialect.insert(measured_days)
    further, wider = [], {}
    for name, of in (("least_bytes", least), ("most_bytes", most), ("least_ms", least), ("most_ms", most)):
        old, given = measured_days.c[name], new.excluded[name]
        beyond = given < old if of == least else given > old
        further.append(sa.or_(beyond, sa.and_(old.is_(None), given.is_not(None))))
        # SQLite's functions answer null where one of the two is.
        wider[name] = getattr(sa.func, of)(sa.func.coalesce(old, given), sa.func.coalesce(given, old))
    return cast(
        "sa.Executable",
        new.on_conflict_do_update(index_elements=["tenant", "day"], set_=wider, where=sa.or_(*further)),
    )


WIDEN: Mapping[str, sa.Executable] = {
    "sqlite": _widen(sqlite, "min", "max"),
    "postgresql": _widen(postgresql, "least", "greatest"),
}
_SETTLE_PAUSES = (0.0, 0.5, 1.0, 2.0)

Parameters = Mapping[str, Any]
A = TypeVar("A")
R = TypeVar("R")


class Transaction:
    """One write transaction, as an act may use it."""

    def __init__(self, connection: AsyncConnection, periods: set[int] | None = None) -> None:
        self._connection = connection
        self.periods: set[int] = set() if periods is None else periods
        """Periods that have a partition; see `vault.storage.catalog.partitions`."""
        self.dialect = connection.dialect.name
        self.events: list[AuditEvent] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.live: Counter[tuple[str, int]] = Counter()
        self.measured: dict[tuple[str, int], list[tuple[int, int | None]]] = {}
        self.writes = 0

    async def fetch(self, statement: sa.Executable, parameters: Parameters | None = None) -> Sequence[sa.Row[Any]]:
        """Return all rows of one statement."""
        return (await self._connection.execute(statement, parameters)).all()

    async def write(self, statement: sa.Executable, parameters: Parameters | Sequence[Parameters]) -> int:
        """Execute once, or once per element; return how many rows were touched."""
        if not parameters:
            return 0
        count: int = (await self._connection.execute(statement, parameters)).rowcount
        self.writes += abs(count)  # -1: the driver does not know, so assume it did
        return count

    async def run(self, work: Callable[[sa.Connection], R]) -> R:
        """Run `work`, which changes the schema and no row."""
        return await self._connection.run_sync(work)

    async def insert_unless_there(
        self, table: sa.Table, columns: Sequence[str], values: Sequence[tuple[Any, ...]], *, unique: Sequence[str]
    ) -> None:
        """Insert rows given as tuples of `columns`, except those that share `unique` with an existing row."""
        if self.dialect != "sqlite":
            statement = postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
            await self.write(statement, [dict(zip(columns, row, strict=True)) for row in values])
            return
        # Many rows a statement: every statement waits for the interpreter lock once, and another thread may be
        # computing.
        row_text = f"({','.join('?' * len(columns))})"
        head = f"INSERT INTO {table.name} ({','.join(columns)}) VALUES "  # noqa: S608 - names of the schema, no values
        tail = f" ON CONFLICT ({','.join(unique)}) DO NOTHING"
        for start in range(0, len(values), _ROWS_A_STATEMENT):
            some = values[start : start + _ROWS_A_STATEMENT]
            text = head + ",".join([row_text] * len(some)) + tail
            await self._connection.exec_driver_sql(text, tuple(chain.from_iterable(some)))
        self.writes += len(values)

    async def fetch_each(
        self, table: sa.Table, columns: Sequence[str], *, keys: Sequence[bytes], by: Sequence[str] = ()
    ) -> Sequence[sa.Row[Any]]:
        """Return these columns of the rows whose id is one of `keys`, of which there may be thousands.

        With `by` the rows are put together by these columns, and the others are aggregates.
        """
        tail = f" GROUP BY {','.join(by)}" if by else ""
        head = f"SELECT {','.join((*by, *columns))} FROM {table.name} WHERE id"  # noqa: S608 - names of the schema
        if self.dialect != "sqlite":
            return (await self._connection.exec_driver_sql(f"{head} = ANY($1::bytea[]){tail}", ([*keys],))).all()
        head = f"{_taken(_KEY_BYTES)} {head}"
        text = f"{head} IN (SELECT substr(:taken, n.at, {_KEY_BYTES}) FROM n){tail}"  # noqa: S608 - names of the schema
        return (await self._connection.exec_driver_sql(text, {"taken": b"".join(keys)})).all()

    async def add_each(
        self, table: sa.Table, *, unique: Sequence[str], column: str, values: Sequence[tuple[Any, ...]]
    ) -> None:
        """Add to the number in `column`, the last of each of `values`, and insert the row where there is none."""
        names = (*unique, column)
        for start in range(0, len(values), _ROWS_A_STATEMENT):
            some = values[start : start + _ROWS_A_STATEMENT]
            flat = (*chain.from_iterable(some),)
            marks = [f"${number + 1}" for number in range(len(flat))] if self.dialect != "sqlite" else ["?"] * len(flat)
            each = [f"({','.join(marks[at : at + len(names)])})" for at in range(0, len(flat), len(names))]
            text = (
                f"INSERT INTO {table.name} AS t ({','.join(names)})"  # noqa: S608 - names of the schema, no values
                f" VALUES {','.join(each)} ON CONFLICT ({','.join(unique)}) DO UPDATE SET {column} = t.{column}"
                f" + excluded.{column}"
            )
            await self._connection.exec_driver_sql(text, flat)
        self.writes += len(values)

    async def update_each(
        self, table: sa.Table, *, column: str, prefix: str, named: Sequence[bytes], common: Parameters
    ) -> None:
        """Set `column` of some rows to an id each, which has this prefix, and the columns of `common` alike in all.

        An item of `named` is the 16 bytes of an id, and then the 16 of the row that gets it.
        """
        if not named:
            return
        names = [*common]
        if self.dialect != "sqlite":
            setting = ", ".join(f"{name} = ${number}" for number, name in enumerate(names, start=3))
            text = (
                f"UPDATE {table.name} SET {column} = '{prefix}_' || encode(substr(n.v, 1, {_KEY_BYTES}), 'hex')"  # noqa: S608
                f", {setting} FROM unnest($1::bytea[]) AS n (v) WHERE {table.name}.id = substr(n.v, {_KEY_BYTES + 1})"
                # Else a planner reads the whole table to join it.
                f" AND {table.name}.id = ANY($2::bytea[])"
            )
            keys = [each[_KEY_BYTES:] for each in named]
            await self._connection.exec_driver_sql(text, ([*named], keys, *common.values()))
        else:
            setting = ", ".join(f"{name} = :{name}" for name in names)
            text = (
                f"{_taken(2 * _KEY_BYTES)} UPDATE {table.name} SET {column} = '{prefix}_' ||"  # noqa: S608 - as above
                f" lower(hex(substr(:taken, n.at, {_KEY_BYTES}))), {setting}"
                f" FROM n WHERE {table.name}.id = substr(:taken, n.at + {_KEY_BYTES}, {_KEY_BYTES})"
            )
            await self._connection.exec_driver_sql(text, {"taken": b"".join(named), **common})
        self.writes += len(named)

    async def write_each(self, *statements: sa.Executable) -> None:
        """Execute statements that have no parameters, in order."""
        for statement in statements:
            self.writes += abs((await self._connection.execute(statement)).rowcount)

    def count(self, tenant: str, state: str, by: int) -> None:
        """Change the count of a tenant's recordings in a state by `by`, with this transaction."""
        self.counts[tenant, state] += by

    def count_live(self, tenant: str, created_at: int, by: int) -> None:
        """Change the count of a tenant's live recordings captured on the day of `created_at` by `by`, likewise."""
        self.live[tenant, created_at // rows.DAY] += by

    def measure(self, tenant: str, started_at: int, size: int, lasted_ms: int | None) -> None:
        """Widen the bounds of the day of `started_at` by a tenant's recording that has ended, with this transaction."""
        self.measured.setdefault((tenant, started_at // rows.DAY), []).append((size, lasted_ms))

    def audit(self, events: Sequence[AuditEvent]) -> None:
        """Write `events` with this transaction."""
        self.events += events


def _taken(width: int) -> str:
    """Return the SQLite text before a statement that takes values of `width` bytes from the parameter `taken`.

    One value instead of thousands, and one statement: each waits for the interpreter's lock, and another thread may be
    computing.
    """
    further = f"SELECT at + {width} FROM n WHERE at + {width} <= length(:taken)"  # noqa: S608 - a number
    return f"WITH RECURSIVE n (at) AS (SELECT 1 UNION ALL {further})"


Act = Callable[[Transaction], Awaitable[R]]
BulkAct = Callable[[Transaction, Sequence[A]], Awaitable[Sequence[R | Refused]]]


@dataclass(slots=True, kw_only=True)
class _Pending:
    act: BulkAct[Any, Any]
    argument: Any
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head(AuditHead):
    """The trail's head, and the hour of its last entry; None before the first."""

    hour: int | None


@dataclass(slots=True, kw_only=True)
class _Done:
    """A batch carried out; `lost` if the answer to its commit did not arrive."""

    answers: Sequence[Any]
    head: _Head | None
    events: Sequence[AuditEvent]
    lost: Exception | None = None


class Writer:
    """The only writer of this database in this process."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock, metrics: Metrics | None) -> None:
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._queue: deque[_Pending] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._head: _Head | None = None
        self._periods: set[int] = set()
        self._closed = False

    async def submit(self, act: BulkAct[A, R], argument: A) -> R:
        """Run `act` over `argument` and the arguments that wait for the same act; return once it is durable.

        A cancelled caller withdraws an act that has not begun; one that has begun is carried out, and its answer is
        dropped.
        """
        if self._closed:
            raise Unavailable("the catalog is closed")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Pending(act=act, argument=argument, answer=answer))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._work(), name="catalog writer")
        return await answer

    async def run(self, act: Act[R], *, beside: bool = False) -> R:
        """Run one act that shares no call with others.

        It is recorded as an effect of the present keyed request, unless it only runs `beside` it.
        """
        present = None if beside else effects()
        if present is None:
            plain: R = await self.submit(_one_by_one, act)
            return plain
        noted = _Noted(act, present.keyed)
        result: R = await self.submit(_one_by_one, noted)
        present.durable |= noted.wrote
        return result

    async def close(self) -> None:
        """Carry out the acts that were submitted, then refuse new ones."""
        self._closed = True
        if self._drain is not None:
            await asyncio.wait([self._drain])

    async def _work(self) -> None:
        batch: list[_Pending] = []
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH_ACTS))]
                await self._carry_out([pending for pending in batch if not pending.answer.done()])
        finally:
            # Only an ending event loop cancels this task. Every waiter gets an answer.
            for pending in (*batch, *self._queue):
                if not pending.answer.done():
                    pending.answer.set_exception(Unavailable("the catalog is closing"))
            self._queue.clear()

    async def _carry_out(self, batch: Sequence[_Pending]) -> None:
        if not batch:
            return
        try:
            answers = await self._transact(batch)
        except Exception as error:  # noqa: BLE001  # every awaiter gets it; the writer itself must live on
            self._periods.clear()  # another node may have dropped a partition
            if len(batch) > 1 and not is_outage(error):
                for pending in batch:
                    await self._carry_out([pending])
                return
            for pending in batch:
                _answer(pending, _failure(error))
            return
        for pending, answer in zip(batch, answers, strict=True):
            _answer(pending, answer)

    async def _transact(self, batch: Sequence[_Pending]) -> Sequence[Any]:
        try:
            done = await self._attempt(batch)
        except Exception as error:
            if not is_broken(error):
                raise
            # No commit was sent, because the connection had broken before, for example by a restart of the server.
            done = await self._attempt(batch)
        if done.lost is not None:
            await self._settle(done)
        self._head = done.head
        if self._metrics is not None:
            for event in done.events:
                self._metrics.audit_events.labels(event.event, event.outcome).inc()
        return done.answers

    async def _attempt(self, batch: Sequence[_Pending]) -> _Done:
        kinds: dict[BulkAct[Any, Any], list[int]] = {}
        for place, pending in enumerate(batch):
            kinds.setdefault(pending.act, []).append(place)
        answers: list[Any] = [None] * len(batch)
        async with self._engine.connect() as connection:
            try:
                await connection.begin()
                transaction = Transaction(connection, self._periods)
                for act, places in kinds.items():
                    results = await act(transaction, [batch[place].argument for place in places])
                    for place, result in zip(places, results, strict=True):
                        answers[place] = result
                await _write_counts(transaction)
                head = await self._write_audit(transaction)
            except (OSError, TimeoutError):
                await connection.invalidate()  # a late answer would belong to this transaction
                raise
            done = _Done(answers=answers, head=head, events=transaction.events)
            try:
                await connection.commit()
            except Exception as error:
                if not is_doubtful(error, transaction.dialect):
                    raise
                done.lost = error
                await connection.invalidate()
        return done

    async def _settle(self, done: _Done) -> None:
        """Return if a commit whose answer was lost took effect.

        Its audit entries are the evidence. The query takes the writer's lock first, so the lost transaction has ended.
        Unavailable if it changed nothing; OutcomeUnknown if it has no evidence, or if the database does not answer.
        """
        self._head = None
        for pause in _SETTLE_PAUSES if done.events and done.head else ():
            assert done.head is not None
            await asyncio.sleep(pause)
            try:
                async with self._engine.begin() as connection:
                    found = (await connection.execute(_ENTRY, {"place": done.head.seq})).all()
            except Exception as error:
                if not is_outage(error):
                    raise
                continue
            if found and found[0].sha256.hex() == done.head.sha256:
                return
            raise Unavailable("the catalog's database broke off a commit; nothing was changed") from done.lost
        raise OutcomeUnknown(
            "the catalog's database broke off a commit, and it is not known yet whether it took effect",
            hint="check before doing it again",
        ) from done.lost

    async def _write_audit(self, transaction: Transaction) -> _Head | None:
        """Append the transaction's events; the head moves first, so two writers can never use one number."""
        if not transaction.events:
            return self._head
        at = self._clock.now()
        hour = rows.micros(at) // rows.HOUR
        # The remembered head saves a read. If another process has written since, the swap fails and the head is read.
        for head in (self._head, None):
            known = head or await _read_head(transaction)
            entries = extend_chain(known, transaction.events, at=at)
            moved = await transaction.write(_MOVE_HEAD, _swap(known, entries[-1]))
            if moved:
                await transaction.write(_INSERT_AUDIT, [rows.from_audit(entry) for entry in entries])
                if hour != known.hour:
                    await transaction.write(_INSERT_HOUR, {"first": entries[0].seq, "hour": hour})
                return _Head(seq=entries[-1].seq, sha256=entries[-1].sha256, hour=hour)
        raise IntegrityError("the audit trail's head changed inside a transaction; nothing was written")


async def _write_counts(transaction: Transaction) -> None:
    """Add what the transaction's rows moved to the counts of their tenants, a statement for each table."""
    await transaction.add_each(
        recording_counts,
        unique=("tenant", "state"),
        column="n",
        values=[(tenant, state, by) for (tenant, state), by in sorted(transaction.counts.items()) if by],
    )
    await transaction.add_each(
        live_counts,
        unique=("tenant", "day"),
        column="n",
        values=[(tenant, day, by) for (tenant, day), by in sorted(transaction.live.items()) if by],
    )
    await transaction.write(WIDEN[transaction.dialect], [*map(_bounds, sorted(transaction.measured.items()))])


def _bounds(measured: tuple[tuple[str, int], Sequence[tuple[int, int | None]]]) -> Parameters:
    (tenant, day), each = measured
    sizes, lengths = [size for size, _ in each], [lasted for _, lasted in each if lasted is not None]
    return {
        "tenant": tenant,
        "day": day,
        "least_bytes": min(sizes),
        "most_bytes": max(sizes),
        "least_ms": min(lengths, default=None),
        "most_ms": max(lengths, default=None),
    }


async def _read_head(transaction: Transaction) -> _Head:
    found = await transaction.fetch(_HEAD)
    if not found:
        raise IntegrityError("the audit trail has lost its head; nothing was written")
    hours = await transaction.fetch(_HOUR)
    return _Head(seq=found[0].seq, sha256=found[0].sha256.hex(), hour=hours[0].hour if hours else None)


def _swap(old: AuditHead, new: AuditEntry) -> Parameters:
    return {
        "old_seq": old.seq,
        "old_sha256": bytes.fromhex(old.sha256),
        "new_seq": new.seq,
        "new_sha256": bytes.fromhex(new.sha256),
    }


class _Noted:
    """An act that also stores, in its transaction, the evidence that its keyed request took effect."""

    def __init__(self, act: Act[Any], keyed: Keyed | None) -> None:
        self._act = act
        self._keyed = keyed
        self.wrote = False

    async def __call__(self, transaction: Transaction) -> Any:
        writes, events = transaction.writes, len(transaction.events)
        result = await self._act(transaction)
        self.wrote = (transaction.writes, len(transaction.events)) != (writes, events)
        if self.wrote and self._keyed is not None:
            named = {
                "its_token": self._keyed.token,
                "its_key": self._keyed.key,
                "its_attempt": self._keyed.attempt,
                "new_target": next((each.target for each in transaction.events[events:]), None),
            }
            if not await transaction.write(_NOTE, named):
                raise Conflict(
                    "a repetition with the same Idempotency-Key was faster; this request changed nothing",
                    hint="the repetition has the answer",
                )
        return result


async def _one_by_one(transaction: Transaction, acts: Sequence[Act[Any]]) -> Sequence[Any]:
    answers: list[Any] = []
    for act in acts:
        before = transaction.writes, len(transaction.events)
        try:
            answers.append(await act(transaction))
        except Refused as refusal:
            if (transaction.writes, len(transaction.events)) != before:
                raise  # the act had written already: only a rollback makes "nothing was changed" true
            answers.append(refusal)
    return answers


def _answer(pending: _Pending, answer: Any) -> None:
    if pending.answer.done():
        return
    if isinstance(answer, Exception):
        pending.answer.set_exception(answer)
    else:
        pending.answer.set_result(answer)


def _failure(error: Exception) -> Exception:
    """Return a new exception for each awaiter, so that their tracebacks stay apart."""
    failure = translate(error)
    if failure is not error:
        failure.__cause__ = error
    return failure
