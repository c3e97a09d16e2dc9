"""Cobblestone-256 messages: sound ones, and every way of damaging one."""

from tests.vectors.encoding import plaintext_facts, seed, to_json
from vault.crypto import chunked

NAME = "chunked"
ABOUT = (
    "Messages of c2sp.org/chunked-encryption (Cobblestone-256). Bytes are hex; in a list, a number is that many zero "
    "bytes. The long plaintexts are chosen so that their ciphertext is almost all zeros."
)

KEY = seed("chunked key")
SALT = seed("chunked salt", 24)
CONTEXT = b"callvault chunked vectors"
PREFIX, STRIDE = chunked.PREFIX_BYTES, chunked.STRIDE_BYTES


def flat_plaintext(length, key=KEY, salt=SALT, context=CONTEXT):
    """Return the plaintext of that length whose ciphertext is zero bytes: the key stream itself."""
    derived = chunked._derive(key, salt, context)
    pieces = []
    for number in range(length // chunked.CHUNK_BYTES + 1):
        size = min(chunked.CHUNK_BYTES, length - number * chunked.CHUNK_BYTES)
        nonce = (derived.base_nonce ^ number).to_bytes(12, "big")
        pieces.append(derived.aead.encrypt(nonce, bytes(size), None)[:size])
    return b"".join(pieces)


def case(name, outcome, message, *, key=KEY, context=CONTEXT, plaintext=None):
    found = {"name": name, "outcome": outcome, "input_key": key.hex(), "context": context.hex()}
    found["message"] = to_json(message)
    return found if plaintext is None else found | plaintext_facts(plaintext)


def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 1
    return changed


def sound():
    found = []
    for name, plaintext in (("empty", b""), ("one byte", b"\x7f"), ("short", b"Good morning, admissions office.")):
        found.append(case(name, "ok", chunked.seal(KEY, SALT, CONTEXT, plaintext), plaintext=plaintext))
    short = b"no context"
    found.append(case("empty context", "ok", chunked.seal(KEY, SALT, b"", short), context=b"", plaintext=short))
    for length in (16_383, 16_384, 16_385, 32_768, 32_769, 257 * 16_384 + 5):
        plaintext = flat_plaintext(length)
        found.append(case(f"{length} bytes", "ok", chunked.seal(KEY, SALT, CONTEXT, plaintext), plaintext=plaintext))
    return found


def cases():
    short = chunked.seal(KEY, SALT, CONTEXT, b"Good morning, admissions office.")
    full = chunked.seal(KEY, SALT, CONTEXT, flat_plaintext(16_384))
    long = chunked.seal(KEY, SALT, CONTEXT, flat_plaintext(2 * 16_384 + 40))
    first, second, last = long[PREFIX : PREFIX + STRIDE], long[PREFIX + STRIDE : PREFIX + 2 * STRIDE], long[-56:]
    prefix = long[:PREFIX]
    return [
        *sound(),
        case("salt changed", "tampered", flipped(short, 0)),
        case("commitment changed", "tampered", flipped(short, 24)),
        case("ciphertext changed", "tampered", flipped(short, 56)),
        case("tag changed", "tampered", flipped(short, len(short) - 1)),
        case("wrong key", "tampered", short, key=seed("another key")),
        case("wrong context", "tampered", short, context=CONTEXT + b"."),
        case("chunks reordered", "tampered", prefix + second + first + last),
        case("chunk duplicated", "tampered", prefix + first + first + last),
        case("chunk left out", "tampered", prefix + first + last),
        case("byte appended", "tampered", short + b"\0"),
        case("chunk appended after the short one", "tampered", full + last),
        case("nothing", "truncated", b""),
        case("salt only", "truncated", short[:24]),
        case("prefix only", "truncated", short[:56]),
        case("tag cut", "truncated", short[: 56 + 15]),
        case("last byte missing", "tampered", short[:-1]),
        case("ends on a full chunk", "truncated", full[:-16]),
        case("two full chunks and no end", "truncated", prefix + first + second),
        case("cut inside the last tag", "truncated", full[:-1]),
        case("cut inside a full chunk", "tampered", full[: PREFIX + 9000]),
    ]
