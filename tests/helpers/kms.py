"""The part of AWS KMS that the vault uses, after its documented JSON protocol; real RSA-OAEP and AES-GCM inside.

No AWS was asked to confirm it: it is as good as its reading of the API reference.
"""

# ruff: noqa: N802, N803 - operations and parameters have AWS's names

import base64
import contextlib
import functools
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vault.keystore.root.awskms import KmsSettings

REGION = "eu-west-2"
_ACCOUNT = "111122223333"


@functools.cache
def _importing():
    return generate_private_key(public_exponent=65537, key_size=4096)


class KmsError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(kw_only=True)
class Key:
    key_id: str
    description: str
    created: float
    material: bytes | None = None
    ending: bool = False
    enabled: bool = True

    @property
    def state(self) -> str:
        if self.ending:
            return "PendingDeletion"
        if self.material is None:
            return "PendingImport"
        return "Enabled" if self.enabled else "Disabled"

    @property
    def metadata(self):
        return {
            "AWSAccountId": _ACCOUNT,
            "KeyId": self.key_id,
            "Arn": f"arn:aws:kms:{REGION}:{_ACCOUNT}:key/{self.key_id}",
            "CreationDate": self.created,
            "Description": self.description,
            "Enabled": self.state == "Enabled",
            "KeyState": self.state,
            "KeyUsage": "ENCRYPT_DECRYPT",
            "Origin": "EXTERNAL",
            "MultiRegion": False,
        }


@dataclass(kw_only=True)
class KmsServer:
    """One account in one region. `refuse` maps an operation to the error code it answers with; `log` has them all."""

    keys: dict[str, Key] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    refuse: dict[str, str] = field(default_factory=dict)
    drop: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    stale: int = 0
    """How many more looks at a key without material still show it enabled."""
    hidden: int = 0
    """How many more lists of aliases do not show the newest one."""
    page: int = 4
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    port: int = 0

    def settings(self, **changes) -> KmsSettings:
        defaults = {
            "region": REGION,
            "endpoint": f"http://127.0.0.1:{self.port}",
            "access_key": "AKIDEXAMPLE",
            "secret_key": "secret",
            "timeout_seconds": 5.0,
            "attempts": 1,
        }
        return KmsSettings(**{**defaults, **changes})

    @contextlib.asynccontextmanager
    async def running(self):
        app = web.Application()
        app.router.add_post("/", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].removeprefix("TrentService.")
        self.log.append(operation)
        body = json.loads(await request.read())
        try:
            answer = self._carry_out(operation, body)
        except KmsError as error:
            return web.json_response({"__type": error.code, "message": "refused"}, status=400)
        if operation in self.drop:
            # Applied, and the answer lost.
            request.transport.abort()
        return web.json_response(answer, content_type="application/x-amz-json-1.1")

    def _carry_out(self, operation: str, body):
        if operation in self.refuse:
            raise KmsError(self.refuse[operation])
        return getattr(self, f"_{operation}")(**body)

    def _key(self, key_id: str) -> Key:
        if key_id not in self.keys:
            raise KmsError("NotFoundException")
        return self.keys[key_id]

    def _usable(self, key_id: str) -> bytes:
        key = self._key(key_id)
        if key.state == "Disabled":
            raise KmsError("DisabledException")
        if key.state != "Enabled":
            raise KmsError("KMSInvalidStateException")
        return key.material

    def _CreateKey(self, *, Origin, KeySpec, Description):
        assert (Origin, KeySpec) == ("EXTERNAL", "SYMMETRIC_DEFAULT")
        key = Key(key_id=str(uuid.uuid4()), description=Description, created=float(int(self.clock().timestamp())))
        self.keys[key.key_id] = key
        return {"KeyMetadata": key.metadata}

    def _CreateAlias(self, *, AliasName, TargetKeyId):
        self._key(TargetKeyId)
        if AliasName in self.aliases:
            raise KmsError("AlreadyExistsException")
        self.aliases[AliasName] = TargetKeyId
        return {}

    def _DeleteAlias(self, *, AliasName):
        if AliasName not in self.aliases:
            raise KmsError("NotFoundException")
        del self.aliases[AliasName]
        return {}

    def _ListAliases(self, *, Limit, Marker="0"):
        assert 1 <= Limit <= 100
        start = int(Marker)
        names = sorted(list(self.aliases)[: -1 if self.hidden else None])
        self.hidden = max(0, self.hidden - 1)
        some = [{"AliasName": name, "TargetKeyId": self.aliases[name]} for name in names[start : start + self.page]]
        if start == 0:
            some.append({"AliasName": "alias/aws/s3"})
        if start + self.page < len(names):
            return {"Aliases": some, "Truncated": True, "NextMarker": str(start + self.page)}
        return {"Aliases": some, "Truncated": False}

    def _DescribeKey(self, *, KeyId):
        key = self._key(KeyId)
        if self.stale and key.state == "PendingImport":
            self.stale -= 1
            return {"KeyMetadata": {**key.metadata, "KeyState": "Enabled"}}
        return {"KeyMetadata": key.metadata}

    def _GetParametersForImport(self, *, KeyId, WrappingAlgorithm, WrappingKeySpec):
        self._key(KeyId)
        assert (WrappingAlgorithm, WrappingKeySpec) == ("RSAES_OAEP_SHA_256", "RSA_4096")
        token = os.urandom(16)
        self.tokens[token.hex()] = KeyId
        der = _importing().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "KeyId": KeyId,
            "ImportToken": base64.b64encode(token).decode(),
            "PublicKey": base64.b64encode(der).decode(),
            "ParametersValidTo": time.time() + 86400,
        }

    def _ImportKeyMaterial(self, *, KeyId, ImportToken, EncryptedKeyMaterial, ExpirationModel):
        assert ExpirationModel == "KEY_MATERIAL_DOES_NOT_EXPIRE"
        if self.tokens.get(base64.b64decode(ImportToken).hex()) != KeyId:
            raise KmsError("InvalidImportTokenException")
        padding = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
        material = _importing().decrypt(base64.b64decode(EncryptedKeyMaterial), padding)
        assert len(material) == 32
        self._key(KeyId).material = material
        return {}

    def _Encrypt(self, *, KeyId, Plaintext, EncryptionContext):
        material = self._usable(KeyId)
        nonce = os.urandom(12)
        aad = json.dumps(EncryptionContext, sort_keys=True).encode()
        sealed = AESGCM(material).encrypt(nonce, base64.b64decode(Plaintext), aad)
        blob = uuid.UUID(KeyId).bytes + nonce + sealed
        return {"KeyId": KeyId, "CiphertextBlob": base64.b64encode(blob).decode()}

    def _Decrypt(self, *, KeyId, CiphertextBlob, EncryptionContext):
        material = self._usable(KeyId)
        blob = base64.b64decode(CiphertextBlob)
        if len(blob) < 16 + 12 + 16:
            raise KmsError("InvalidCiphertextException")
        if blob[:16] != uuid.UUID(KeyId).bytes:
            known = any(uuid.UUID(other).bytes == blob[:16] for other in self.keys)
            raise KmsError("IncorrectKeyException" if known else "InvalidCiphertextException")
        aad = json.dumps(EncryptionContext, sort_keys=True).encode()
        try:
            plain = AESGCM(material).decrypt(blob[16:28], blob[28:], aad)
        except InvalidTag:
            raise KmsError("InvalidCiphertextException") from None
        return {"KeyId": KeyId, "Plaintext": base64.b64encode(plain).decode()}

    def _DeleteImportedKeyMaterial(self, *, KeyId):
        self._key(KeyId).material = None
        return {"KeyId": KeyId}

    def _ScheduleKeyDeletion(self, *, KeyId, PendingWindowInDays):
        assert 7 <= PendingWindowInDays <= 30
        key = self._key(KeyId)
        if key.ending:
            raise KmsError("KMSInvalidStateException")
        key.ending = True
        return {"KeyId": KeyId, "KeyState": key.state, "PendingWindowInDays": PendingWindowInDays}
