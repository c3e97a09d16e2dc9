"""Requests that carry an Idempotency-Key."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from vault.ids import TokenId
from vault.ports.repeats import Keyed
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import keyed_requests
from vault.storage.catalog.writer import Transaction

_k = keyed_requests.c
_ITS_KEY: Final = (_k.token == sa.bindparam("its_token"), _k.key == sa.bindparam("its_key"))
_ITS_ATTEMPT: Final = (*_ITS_KEY, _k.attempt == sa.bindparam("its_attempt"))
_FORGET = sa.delete(keyed_requests).where(_k.created_at < sa.bindparam("before"))
_TAKE_OVER = (
    sa.update(keyed_requests)
    .where(
        *_ITS_KEY, _k.request == sa.bindparam("its_request"), _k.status.is_(None), _k.until <= sa.bindparam("its_now")
    )
    .values(attempt=sa.bindparam("new_attempt"), until=sa.bindparam("new_until"))
)
_FIND = sa.select(keyed_requests).where(*_ITS_KEY)
_SETTLE = (
    sa.update(keyed_requests)
    .where(*_ITS_ATTEMPT)
    .values(status=sa.bindparam("new_status"), answer=sa.bindparam("new_answer"))
)
_DROP = sa.delete(keyed_requests).where(*_ITS_ATTEMPT, _k.effect.is_(sa.false()))
_LEAVE = sa.update(keyed_requests).where(*_ITS_ATTEMPT).values(until=sa.bindparam("new_until"))


class RepeatStore:
    """Implements `vault.ports.repeats.KeyedRows`."""

    _database: Database

    async def claim_request(self, asked: Keyed, *, now: datetime, forget_before: datetime) -> Keyed:
        """Insert the request, take it over, or return the one that is there."""

        async def act(transaction: Transaction) -> Keyed:
            await transaction.write(_FORGET, {"before": rows.micros(forget_before)})
            columns = ("token", "key", "request", "attempt", "created_at", "until", "effect")
            values = (
                asked.token,
                asked.key,
                asked.request,
                asked.attempt,
                rows.micros(asked.created_at),
                rows.micros(asked.until),
                False,
            )
            await transaction.insert_unless_there(keyed_requests, columns, [values], unique=("token", "key"))
            taking = {
                **_place(asked),
                "its_request": asked.request,
                "its_now": rows.micros(now),
                "new_attempt": asked.attempt,
                "new_until": rows.micros(asked.until),
            }
            await transaction.write(_TAKE_OVER, taking)
            return _to_keyed((await transaction.fetch(_FIND, _place(asked)))[0])

        return await self._database.writer.run(act, beside=True)

    async def settle_request(self, keyed: Keyed, *, status: int, answer: bytes) -> None:
        """Store the answer."""
        values = {**_place(keyed), "its_attempt": keyed.attempt, "new_status": status, "new_answer": answer}

        async def act(transaction: Transaction) -> None:
            await transaction.write(_SETTLE, values)

        await self._database.writer.run(act, beside=True)

    async def leave_request(self, keyed: Keyed, *, at: datetime) -> None:
        """Remove the request, or let another attempt take it over."""
        place = {**_place(keyed), "its_attempt": keyed.attempt}

        async def act(transaction: Transaction) -> None:
            if not await transaction.write(_DROP, place):
                await transaction.write(_LEAVE, {**place, "new_until": rows.micros(at)})

        await self._database.writer.run(act, beside=True)


def _place(keyed: Keyed) -> dict[str, Any]:
    return {"its_token": keyed.token, "its_key": keyed.key}


def _to_keyed(row: sa.Row[Any]) -> Keyed:
    return Keyed(
        token=TokenId(row.token),
        key=row.key,
        request=row.request,
        attempt=row.attempt,
        created_at=rows.moment(row.created_at),
        until=rows.moment(row.until),
        effect=row.effect,
        target=row.target,
        status=row.status,
        answer=row.answer,
    )
