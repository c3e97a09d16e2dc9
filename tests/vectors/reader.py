"""A reader written from docs/format.md alone: it shares no code with the vault, only the document."""

import base64
import hashlib
import hmac
import json
import re

import msgpack
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors import certificate_reader

ZERO_NONCE = bytes(12)
LAST_LEAF = (1 << 32) - 1


class Bad(Exception):
    """The bytes are not what they should be; its text is the vector's outcome."""


def require(condition, outcome="format"):
    if not condition:
        raise Bad(outcome)


def expand(key, info, length):
    """HKDF-Expand, RFC 5869 section 2.3, with SHA-512."""
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha512")
        output, counter = output + block, counter + 1
    return output[:length]


def subkey(data_key, label, extra=b""):
    return expand(data_key, label + b"\0" + extra, 32)


def unseal(key, nonce, sealed, aad):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except (InvalidTag, ValueError):
        raise Bad("tampered") from None


# Canonical MessagePack


def canonical(data):
    """Decode, encode again and compare."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        raise Bad("format") from None
    require(pack(value) == data)
    return value


def pack(value):
    if isinstance(value, dict):
        value = {key: value[key] for key in sorted(value, key=str.encode)}
        body = b"".join(msgpack.packb(key) + pack(each) for key, each in value.items())
        return msgpack.Packer().pack_map_header(len(value)) + body
    if isinstance(value, list):
        return msgpack.Packer().pack_array_header(len(value)) + b"".join(map(pack, value))
    return msgpack.packb(value)


def fields(data, *names):
    value = canonical(data)
    require(isinstance(value, dict) and set(value) == set(names))
    return value


# Objects


def open_chunks(input_key, context, message):
    salt, commitment, chunks = message[:24], message[24:56], message[56:]
    info = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\0" + salt + context
    derived = expand(input_key, info, 76)
    require(hmac.compare_digest(derived[44:], commitment), "tampered")
    base, plain = int.from_bytes(derived[32:44], "big"), []
    for number in range(len(chunks) // 16_400 + 1):
        chunk = chunks[number * 16_400 : (number + 1) * 16_400]
        plain.append(unseal(derived[:32], (base ^ number).to_bytes(12, "big"), chunk, None))
    require(len(plain[-1]) < 16_384, "truncated")
    return b"".join(plain)


def open_object(data_key, label, data):
    length = int.from_bytes(data[4:8], "big")
    header = data[8 : 8 + length]
    return canonical(header), open_chunks(subkey(data_key, label), header, data[8 + length :])


def object_of(file):
    """Return the object in a file of the filesystem store."""
    length = int.from_bytes(file[5:7], "big")
    require(file[:4] == b"CVO1" and file[4] in (0, 1) and not any(file[7 + length : 512]))
    facts = fields(file[7 : 7 + length], "retain-until", "retention-class", "sha256")
    require(hashlib.sha256(file[512:]).hexdigest() == facts["sha256"])
    return file[512:]


def tree_hash(hashes):
    """Merkle tree hash over leaves that are hashed already."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_hash(hashes[:split]) + tree_hash(hashes[split:])).digest()


def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def sealed_once(key, sealed, aad):
    """Open facts or a note."""
    require(sealed[:1] == b"\1")
    require(len(sealed) >= 29, "truncated")
    return canonical(unseal(key, sealed[1:13], sealed[13:], b"\1" + aad))


def open_facts(data_key, recording, sealed):
    return sealed_once(subkey(data_key, b"callvault/v1/facts"), sealed, recording.encode())


def open_note(data_key, recording, seq, sealed):
    return sealed_once(subkey(data_key, b"callvault/v1/note"), sealed, recording.encode() + seq.to_bytes(4, "big"))


def open_token_secret(backup_key, token, sealed):
    require(sealed[:1] == b"\1")
    aad = b"\1" + bytes.fromhex(token.partition("_")[2])
    return unseal(subkey(backup_key, b"callvault/v1/token-secret"), sealed[1:13], sealed[13:], aad).decode()


def token(leaf_key, field, value):
    return hmac.digest(subkey(leaf_key, b"callvault/v1/blind-index", field.encode()), value.encode(), "sha256")[
        :16
    ].hex()


# Keys


def recombine(material):
    """Undo the anti-forensic split into stripes of 64 bytes."""
    state = bytes(64)
    for at in range(0, len(material) - 64, 64):
        mixed = bytes(one ^ other for one, other in zip(state, material[at : at + 64], strict=True))
        state = hashlib.sha512(bytes(4) + mixed).digest()
    return bytes(one ^ other for one, other in zip(state, material[-64:], strict=True))


def root_key(version, data):
    """Return the tag and the key of a root version's file."""
    length = int.from_bytes(data[4:8], "big")
    require(data[:4] == b"CVRK" and length <= 512 and len(data) == 8 + length + 262_144)
    header = data[8 : 8 + length]
    facts = fields(header, "format", "version", "tag", "created_ms")
    require(facts["format"] == 1 and facts["version"] == version)
    secret = recombine(data[8 + length :])
    require(secret[32:] == hashlib.sha256(header).digest())
    return facts["tag"], secret[:32]


def unwrap(root, version, aad, wrapped):
    return unseal(root, wrapped[:12], wrapped[12:], pack(["callvault/v1/root-wrap", version, aad]))


def open_marker(data):
    facts = fields(data, "format", "keyring", "kind")
    require(facts["format"] == 1 and facts["kind"] == "keyring replica" and len(facts["keyring"]) == 16)
    return facts["keyring"]


def read_head(data):
    """Return a head's members, its body and its MAC, unchecked."""
    found = canonical(data)
    require(isinstance(found, list) and [type(each) for each in found] == [bytes, bytes])
    names = ("format", "keyring", "fence", "epoch", "revision", "root", "wrapped", "index", "index_sha256")
    head = fields(found[0], *names)
    require(head["format"] == 2)
    return head, *found


def check_head(secret, body, mac):
    key = expand(secret, b"callvault/v1/keyring-head", 32)
    require(hmac.compare_digest(hmac.digest(key, body, "sha256"), mac), "tampered")


def open_index(secret, place, data):
    key = expand(secret, b"callvault/v1/keyring-index\0" + data[:32], 32)
    aad = pack(["callvault/v1/keyring-index", place["keyring"], place["epoch"], place["revision"]])
    return canonical(unseal(key, ZERO_NONCE, data[32:], aad))


def open_page(key, keyring, tenant, data):
    return read_page(unseal(key, ZERO_NONCE, data, pack(["callvault/v1/keyring-page", keyring, tenant])))


def read_page(plain):
    """Return the nodes of each cohort, {(part, period, generation): {(depth, prefix): seed}}."""
    page = fields(plain, "format", "tenant", "cohorts", "pins")
    cohorts = {}
    for part, period, generation, nodes in page["cohorts"]:
        require(nodes and len(nodes) % 37 == 0)
        found, free = {}, 0
        for at in range(0, len(nodes), 37):
            depth, prefix = nodes[at], int.from_bytes(nodes[at + 1 : at + 5], "big")
            require(depth <= 32 and prefix < 1 << depth and prefix << (32 - depth) >= free)
            free = prefix + 1 << (32 - depth)
            found[depth, prefix] = nodes[at + 5 : at + 37]
        cohorts[part, period, generation] = found
    require(page["format"] in (1, 2))
    for part, period, generation, *pin in page["pins"]:
        first, last, tag = pin if page["format"] == 1 else (*runs(pin[1])[-1], pin[0])
        require((part, period, generation) in cohorts and first <= last < 1 << 32 and len(tag) == 16)
    return cohorts


def runs(data):
    """Return the runs of leaves that LEB128 numbers give: how far each begins behind the last, and how far it goes."""
    numbers, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            require(byte or shift == 7)
            numbers.append(value)
            value = shift = 0
    require(numbers and not shift and len(numbers) % 2 == 0)
    found, free = [], 0
    for behind, on in zip(numbers[::2], numbers[1::2], strict=True):
        found.append((free + behind, free + behind + on))
        free = found[-1][1] + 2
    return found


def leaf_key(nodes, leaf):
    """Walk down from the node above; `shredded` if there is none."""
    for depth in range(33):
        seed = nodes.get((depth, leaf >> (32 - depth)))
        if seed is not None:
            for level in range(depth, 32):
                bit = leaf >> (31 - level) & 1
                seed = hmac.digest(seed, b"callvault/v1/ggm" + bytes([bit]), "sha256")
            return seed
    raise Bad("shredded")


class Keyring:
    """A root-key directory and one replica, as files by path."""

    def __init__(self, roots, replica):
        store = fields(roots["ROOT-KEYS"], "format", "kind", "store")["store"].hex()
        keyring = open_marker(replica["REPLICA"])
        head, body, mac = read_head(replica["head"])
        require(head["keyring"] == keyring and head["root"].startswith(f"{store}-"))
        tag, root = root_key(head["root"], roots[head["root"]])
        require(tag == b"callvault/keyring\0" + keyring + head["epoch"].to_bytes(8, "big"))
        aad = pack(["callvault/v1/keyring-secret", keyring, head["epoch"]])
        secret = unwrap(root, head["root"], aad, head["wrapped"])
        check_head(secret, body, mac)
        sealed = replica[f"index/{head['index']}"]
        require(hashlib.sha256(sealed).digest() == head["index_sha256"])
        self.index = open_index(secret, head, sealed)
        self._cohorts = {}
        for tenant, name, sha256, key in self.index["pages"]:
            page = replica[f"pages/{name}"]
            require(hashlib.sha256(page).digest() == sha256)
            for cohort, nodes in open_page(key, keyring, tenant, page).items():
                self._cohorts[(tenant, *cohort)] = nodes

    def data_key(self, coordinate):
        *cohort, leaf = coordinate
        return leaf_key(self._cohorts.get(tuple(cohort), {}), leaf)


# The journal


class Handle:
    """One handle of one file: whose records it carries, under which key, and what is expected next."""

    def __init__(self, recording, key):
        self.recording, self.key, self.next, self.at, self.over = recording, key, 1, 0, False


class Journal:
    """Replays files, given in any order; `recordings` is {id: [first byte, [(start, end, bytes)], its end or None]}."""

    def __init__(self, files, data_key):
        self._data_key = data_key
        self.coordinates, self.recordings, self.damaged = {}, {}, set()
        self._current = {}
        ordered = sorted((int.from_bytes(data[8:16], "big"), data) for data in files)
        self._numbers = [number for number, _ in ordered]
        self._last_file = {}
        for number, data in ordered:
            self._file(number, data)

    def _file(self, number, data):
        limit = len(data.rstrip(b"\0"))
        if len(data) < 64 or hashlib.sha256(data[:56]).digest()[:8] != data[56:64]:
            if limit > 64:
                self.damaged.add(number)
            return
        require(data[:4] == b"CVJ1" and data[4:8] == b"\0\0\0\1")
        salt, handles, at = data[24:56], {}, 64
        while at < limit:
            taken = self._take(number, salt, handles, data, at, exact=True)
            if not taken:
                places = range(at, limit)
                at = next((each for each in places if self._take(number, salt, handles, data, each, exact=False)), None)
                if at is None:
                    return
                self.damaged.add(number)
            at += 17 + int.from_bytes(data[at : at + 4], "big")

    def _take(self, number, salt, handles, data, at, *, exact):
        """Account for the record at `at`, if it is one; `exact`: in sequence, not as evidence behind damage."""
        prefix = data[at : at + 17]
        length, kind = int.from_bytes(prefix[:4], "big"), prefix[4] if len(prefix) == 17 else 0
        handle, seq = int.from_bytes(prefix[5:9], "big"), int.from_bytes(prefix[9:], "big")
        most = {1: 4112, 2: 1_048_592, 3: 1040}.get(kind, 0)
        body = data[at + 17 : at + 17 + length]
        if not 17 <= length <= most or len(body) < length or not handle or (seq == 0) != (kind == 1):
            return False
        known = handles.get(handle)
        if kind == 1:
            return known is None and self._open(number, salt, handles, handle, prefix, body)
        if known is None or seq < known.next or (exact and seq != known.next):
            return False
        return self._data(known, prefix, body, exact=exact)

    def _data(self, known, prefix, body, *, exact):
        seq, kind = int.from_bytes(prefix[9:], "big"), prefix[4]
        if known.key is None:
            known.next += exact
            return exact
        try:
            plain = AESGCM(known.key).decrypt(seq.to_bytes(12, "big"), body, prefix)
        except InvalidTag:
            return False
        known.over |= seq != known.next
        known.next = seq + 1
        if not known.over and self._current[known.recording] is known:
            found = self.recordings[known.recording]
            if kind == 3:
                found[2], known.over = plain.decode(), True
            else:
                found[1].append((known.at, known.at + len(plain), plain))
                known.at += len(plain)
        return True

    def _open(self, number, salt, handles, handle, prefix, body):
        packed, digest, tag = body[:-24], body[-24:-16], body[-16:]
        if hashlib.sha256(packed).digest()[:8] != digest:
            return False
        opening = canonical(packed)
        recording, offset, released = (opening[name] for name in ("recording", "offset", "released"))
        if self.coordinates.setdefault(recording, opening["coordinate"]) != opening["coordinate"]:
            return False
        try:
            data_key = self._data_key(recording, opening["coordinate"])
        except Bad:
            handles[handle] = Handle(recording, None)
            return True
        key = subkey(data_key, b"callvault/v1/journal", salt + handle.to_bytes(4, "big"))
        try:
            AESGCM(key).decrypt(ZERO_NONCE, tag, prefix + packed + digest)
        except InvalidTag:
            return False
        handles[handle] = now = Handle(recording, key)
        now.at = offset
        self._place(number, now, offset, released)
        return True

    def _place(self, number, now, offset, released):
        seen = now.recording in self.recordings
        first, records, ended = self.recordings.get(now.recording, [offset, [], None])
        gone = [each for each in records if each[1] <= released]
        first, records = gone[-1][1] if gone else first, records[len(gone) :]
        end = records[-1][1] if records else first
        if seen and end < offset and released < offset:
            if all(each in self._numbers for each in range(self._last_file[now.recording] + 1, number)):
                self.damaged.add(number)
                now.over = True
                self.recordings[now.recording] = [first, records, ended]
                return
            first, records = offset, []
        records = [each for each in records if each[1] <= offset]
        if released == offset:
            records = []
        if not records and (released == offset or first > offset):
            first = offset
        self.recordings[now.recording] = [first, records, None]
        self._current[now.recording], self._last_file[now.recording] = now, number


# Certificates


def unbase64(text):
    require(isinstance(text, str) and "=" not in text)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Bad("format") from None
    require(base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text)
    return data


def canonical_json(data):
    """Return a document of which there is one encoding; enough of RFC 8785 for integers, strings and short maps."""
    try:
        value = json.loads(data)
    except ValueError:
        raise Bad("format") from None
    again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    require(again == data)
    return value


def open_jws(jws, issuer, typ):
    """Return the protected header and the payload that `issuer`, 32 bytes, signed."""
    parts = jws.split(".")
    require(len(parts) == 3)
    protected, payload, signature = map(unbase64, parts)
    header = canonical_json(protected)
    require(header.get("alg") == "Ed25519" and not {"crit", "b64"} & header.keys() and header.get("typ") == typ)
    point = base64.urlsafe_b64encode(issuer).rstrip(b"=").decode()
    thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{point}"}}'.encode()).digest()
    require(header["kid"] == base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode(), "tampered")
    try:
        Ed25519PublicKey.from_public_bytes(issuer).verify(signature, f"{parts[0]}.{parts[1]}".encode())
    except InvalidSignature:
        raise Bad("tampered") from None
    return header, payload


MEMBERS = {
    "": "schema certificate_id nonce status supersedes parties media encryption retention authorisation sanitisation "
    "verification residuals claims non_claims log",
    "parties": "tenant controller processor contact",
    "media": "recording_id parts objects region",
    "encryption": "algorithm coordinate key_commitment encrypted_before_first_write",
    "retention": "policy policy_version basis captured_at retain_until trigger case_reference",
    "authorisation": "holds_checked_at hold_revision active_holds approvers",
    "sanitisation": "category technique epoch_destroyed provider assurance key_copies data_copies tool tool_version "
    "actor started unrecoverable_at caches_clear_at completed",
    "verification": "checks at",
    "claims": "version texts",
    "non_claims": "version texts",
}


def verify_certificate(jws, issuer, texts):
    """Return a certificate's document and, if it has one, its batch statement; `texts` are those of each version."""
    header, payload = open_jws(jws, issuer, "callvault-deletion-certificate+jws")
    require(header.keys() - {"batch", "batch_index", "batch_path"} == {"alg", "kid", "typ"})
    document = canonical_json(payload)
    if document.get("schema") == "callvault/deletion-certificate/v2":
        try:
            certificate_reader.check(document, texts)
        except certificate_reader.Bad as error:
            raise Bad(str(error)) from error
        return document, _membership(header, payload, issuer)
    for name, members in MEMBERS.items():
        require(set(document[name] if name else document) == set(members.split()))
    require(document["schema"] == "callvault/deletion-certificate/v1" and document["log"] is None)
    require(document["encryption"]["encrypted_before_first_write"] in (True, False))
    require(isinstance(document["encryption"]["encrypted_before_first_write"], bool))
    require(_consistent(document, texts), "contradiction")
    return document, _membership(header, payload, issuer)


def _consistent(document, texts):
    sanitisation, retention, media = document["sanitisation"], document["retention"], document["media"]
    gone, checks = sanitisation["unrecoverable_at"], document["verification"]["checks"]
    tenant, part, *_ = document["encryption"]["coordinate"]
    approvers = document["authorisation"]["approvers"]
    early = gone < retention["retain_until"]
    results = {each["check"]: each["result"] for each in checks}
    sound = [
        all(
            re.fullmatch(prefix + "_[0-9a-f]{32}", each)
            for prefix, each in (
                ("cert", document["certificate_id"]),
                ("cert", document["supersedes"] or document["certificate_id"]),
                ("rec", media["recording_id"]),
            )
        ),
        tenant == document["parties"]["tenant"] and part in media["parts"],
        document["authorisation"]["active_holds"] == 0,
        not early or (retention["trigger"] != "expiry" and len(set(approvers)) >= 2),
        retention["captured_at"] <= min(retention["retain_until"], sanitisation["started"]),
        max(sanitisation["started"], document["authorisation"]["holds_checked_at"]) <= gone,
        gone <= min(sanitisation["caches_clear_at"], document["verification"]["at"], sanitisation["completed"] or "9"),
        document["encryption"]["encrypted_before_first_write"],
        "failed" not in [results.get("old_epoch_unwrap_fails"), results.get("leaf_underivable")],
        all(
            texts.get(each["version"], each["texts"]) == each["texts"]
            for each in (document["claims"], document["non_claims"])
        ),
    ]
    if document["status"] == "final":
        copies = [*sanitisation["key_copies"], *sanitisation["data_copies"]]
        done = {each["object"] for each in sanitisation["data_copies"] if each["result"] == "done"}
        places = {each["where"] for each in sanitisation["key_copies"] if each["result"] == "done"}
        sound += [
            sanitisation["completed"] is not None,
            not any(each["result"] in ("failed", "unknown") for each in [*copies, *checks]),
            {"provider_version", "keyring_replica"} <= places,
            {each["name"] for each in media["objects"]} <= done,
            all(
                results.get(name) == "done" for name in ("old_epoch_unwrap_fails", "leaf_underivable", "objects_absent")
            ),
        ]
    return all(sound)


def _membership(header, payload, issuer):
    found = {"batch", "batch_index", "batch_path"} & header.keys()
    if not found:
        return None
    index = header.get("batch_index", "")
    require(len(found) == 3 and index.isdigit() and str(int(index)) == index)
    _, signed = open_jws(header["batch"], issuer, "callvault-certificate-batch+jws")
    statement = canonical_json(signed)
    require(set(statement) == {"schema", "batch_id", "issued_at", "size", "root"} and statement["size"] > 0)
    require(re.fullmatch("bat_[0-9a-f]{32}", statement["batch_id"]), "contradiction")
    path = unbase64(header["batch_path"])
    require(len(path) % 32 == 0 and len(path) <= 53 * 32)
    root = _walk(
        leaf_hash(payload), int(index), statement["size"], [path[at : at + 32] for at in range(0, len(path), 32)]
    )
    require(root is not None and root.hex() == statement["root"], "tampered")
    return statement


def _walk(leaf, index, size, path):
    """RFC 9162 section 2.1.3.2."""
    if index >= size:
        return None
    fn, sn, found = index, size - 1, leaf
    for each in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            found = hashlib.sha256(b"\1" + each + found).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = hashlib.sha256(b"\1" + found + each).digest()
        fn, sn = fn >> 1, sn >> 1
    return found if sn == 0 else None
