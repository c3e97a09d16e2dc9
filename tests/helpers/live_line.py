"""A connection that a call comes over piece by piece."""

from tests.helpers.app import TENANTS
from vault.media.descriptor import raw_media
from vault.model import CallFacts, Codec, Principal, Role
from vault.protocol.live.events import Audio, Started
from vault.services.ingest.live import Feed

MONO = raw_media(Codec.S16LE, rate=8000, channels=1)


TENANT = TENANTS[0]


class Line:
    """A feed whose silence the test sets."""

    def __init__(self, app):
        recorder = Principal(token_id="tok_" + "0" * 32, name="recorder", role=Role.RECORDER, tenant=TENANT)
        self.silence = 0.0
        self.was_replaced = False
        self.feed = Feed(
            app.vault.feeds, tenant=TENANT, actor=recorder, silent_seconds=lambda: self.silence, replaced=self._replaced
        )

    def _replaced(self):
        self.was_replaced = True

    async def begin(self, key="call-1", media=MONO):
        await self.feed.begin(Started(call_key=key, media=media, facts=CallFacts()))
        return self.feed.session

    async def say(self, data):
        await self.feed.apply(Audio(data))
