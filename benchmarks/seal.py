"""Segment seal and open beside raw AES-256-GCM of the same bytes, per size. `python -m benchmarks.seal`."""

import os
import statistics
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.common import report
from vault.crypto.sealed import open_segment, seal_segment
from vault.format.segment import SegmentHeader
from vault.ids import RecordingId, TenantId
from vault.model import Cohort, Coordinate, DataKey, Part

SIZES = (1600, 16_384, 480_000, 8 << 20)


def best_us(work, repeat):
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e6, 1)


def main():
    cohort = Cohort(tenant=TenantId("bench"), part=Part.AUDIO, period=20_000, generation=0)
    header = SegmentHeader(
        recording=RecordingId("rec_" + "0" * 32),
        part=Part.AUDIO,
        index=0,
        offset=0,
        attempt="0" * 32,
        coordinate=Coordinate(cohort=cohort, leaf=0),
        created_ms=0,
    )
    key, raw = DataKey(os.urandom(32)), AESGCM(os.urandom(32))
    for size in SIZES:
        audio = os.urandom(size)
        repeat = max(10, min(2000, 20_000_000 // size))
        salt, nonce = os.urandom(24), os.urandom(12)
        sealed = bytes(seal_segment(key, header, [audio], salt=salt))
        encrypted = raw.encrypt(nonce, audio, None)
        report(
            "seal",
            bytes=size,
            seal_us=best_us(lambda audio=audio, salt=salt: seal_segment(key, header, [audio], salt=salt), repeat),
            open_us=best_us(lambda sealed=sealed: open_segment(key, header, sealed), repeat),
            raw_gcm_seal_us=best_us(lambda audio=audio, nonce=nonce: raw.encrypt(nonce, audio, None), repeat),
            raw_gcm_open_us=best_us(lambda c=encrypted, nonce=nonce: raw.decrypt(nonce, c, None), repeat),
        )


if __name__ == "__main__":
    main()
