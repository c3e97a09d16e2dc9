"""`doctor` and repairs: they work on the vault's files, whether or not a server runs."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from vault.access.permissions import has_expired
from vault.config import S3_SCHEME, Config, load_config
from vault.crypto.presented import first_to_expire
from vault.errors import ConfigError, FormatError, Unavailable, VaultError
from vault.ids import TenantId, TokenId
from vault.instants import rfc3339
from vault.keystore import recovery
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import Replicas
from vault.model import Content, Finding, Misdeclared, Role
from vault.places import name_of, unusable
from vault.ports.catalog import Catalog
from vault.ports.time import Clock
from vault.services.health.status import EXPIRES_SOON
from vault.services.tenants.tenants import Webhooks
from vault.storage.journal.journal import in_use
from vault.storage.postgres import clocks
from vault.threads import in_thread
from vault.wiring.adapters import (
    SystemClock,
    catalog_place,
    keyring_replicas,
    observe_keyring,
    open_store,
    root_keys,
)
from vault.wiring.files import Piece, Place, entries, places_of, refuse_unusable, tls_files, trouble
from vault.wiring.init import identity_findings
from vault.wiring.lineage import lineage_findings
from vault.wiring.open import memory_findings, observe_vault
from vault.wiring.retention import bounds_of, retention_findings

# -- findings about a vault ---------------------------------------------------------------------------------------

NOT_SERVED: Final = "no process has it open"
_LATE: Final = timedelta(hours=1)
_LATELY: Final = timedelta(days=7)
_CAME: Final[Mapping[Content, str]] = {
    Content.WAV: "a WAV head",
    Content.OGG: "Ogg",
    Content.WEBM: "WebM",
    Content.MP3: "MP3",
    Content.TEXT: "text",
    Content.UNKNOWN: "no head of it",
}
_PEOPLE: Final = 2
_SKEW: Final = timedelta(seconds=1)
_FAR: Final = timedelta(minutes=1)


async def check_vault(config: Config, config_file: Path | None = None) -> Sequence[Finding]:
    """Check everything that can be checked, beside a server or without one.

    Every failure becomes a finding. Nothing is changed: the next start repairs what a crash left.
    """
    clock = SystemClock()
    files = await in_thread(file_findings, config, config_file)
    findings = [*memory_findings(), *files.findings]
    if not files.closed & {Piece.ROOT_KEYS, Piece.SECRETS}:
        findings += await _found("root keys", lambda: root_keys(config, clock, os.urandom).self_check())
    if Piece.OBJECTS not in files.closed:
        findings += await _found("objects", lambda: _objects(config))
    if Piece.JOURNAL not in files.closed:
        findings += await _found("journal", lambda: _journal(config))
    if Piece.TLS not in files.closed:
        findings += await _found("tls", lambda: in_thread(certificate_findings, config, now=clock.now()))
    findings += await _found("clock", lambda: _clock(config, clock))
    if not files.closed & {Piece.CATALOG, Piece.KEYRING, Piece.ROOT_KEYS, Piece.SECRETS}:
        findings += await _found("vault", lambda: _observed(config, clock))
    return findings


async def _found(subject: str, look: Callable[[], Awaitable[Sequence[Finding]]]) -> Sequence[Finding]:
    """Return what a check finds, or one finding for its failure: a warning if waiting may cure it, else an error."""
    try:
        return await look()
    except VaultError as error:
        passing = subject == "vault" and isinstance(error, Unavailable)
        level = "warning" if passing else "error"
        return (Finding(level=level, subject=subject, message=error.message, hint=error.hint),)


async def _objects(config: Config) -> Sequence[Finding]:
    store = await open_store(config, observes=True)
    try:
        return await store.check()
    finally:
        await store.close()


async def _journal(config: Config) -> Sequence[Finding]:
    used = await in_thread(in_use, config.journal_path)
    return (Finding(level="ok", subject="journal", message="a process has it open" if used else NOT_SERVED),)


async def _clock(config: Config, clock: Clock) -> Sequence[Finding]:
    place = catalog_place(config)
    return () if isinstance(place, Path) else (clock_finding(*await clocks(place, clock)),)


def clock_finding(before: datetime, said: datetime, after: datetime) -> Finding:
    """Judge a database's clock, which said `said` between two readings of this machine's clock."""
    ahead = said - (before + (after - before) / 2)
    # The part of the difference that is certain although the answer took time.
    certain = abs(ahead) - (after - before) / 2
    seconds = abs(ahead).total_seconds()
    message = (
        f"the database's clock is {seconds:.1f} s {'ahead of' if ahead > timedelta() else 'behind'} this machine's"
    )
    if certain < _SKEW:
        return Finding(level="ok", subject="clock", message=message)
    level = "error" if certain >= _FAR else "warning"
    hint = "keep both with NTP (timedatectl): nodes judge dates, tokens and signatures by their own clocks"
    return Finding(level=level, subject="clock", message=message, hint=hint)


def certificate_findings(config: Config, *, now: datetime) -> Sequence[Finding]:
    """Return when each certificate that the settings name ends; ConfigError if one of their files is no certificate."""
    findings = []
    for setting, path in tls_files(config):
        if setting.endswith(".tls_key"):
            continue
        try:
            found = first_to_expire(path.read_bytes())
        except FormatError as error:
            raise ConfigError(f"{setting}: {path} cannot be used: {error.message}") from error
        except OSError as error:
            raise unusable(path, error, setting=setting) from error
        hint = f"renew it in {path}, then have the server read it again: systemctl reload callvault, or SIGHUP"
        findings.append(ending_finding(f"{setting} ({found.subject})", found.ends, now=now, hint=hint))
    return findings


def ending_finding(what: str, ends: datetime, *, now: datetime, hint: str) -> Finding:
    """Judge a certificate by when it ends: a warning within the last fourteen days."""
    left = ends - now
    if left <= timedelta():
        return Finding(level="error", subject="tls", message=f"{what} ended at {ends:%Y-%m-%d %H:%M} UTC", hint=hint)
    message = f"{what} ends at {ends:%Y-%m-%d %H:%M} UTC, in {left.days} {'day' if left.days == 1 else 'days'}"
    if left < EXPIRES_SOON:
        return Finding(level="warning", subject="tls", message=message, hint=hint)
    return Finding(level="ok", subject="tls", message=message)


async def _observed(config: Config, clock: Clock) -> Sequence[Finding]:
    async with observe_vault(config, clock=clock) as (catalog, keyring):
        return await _look(config, catalog, keyring, now=clock.now())


async def _look(config: Config, catalog: Catalog, keyring: Keyring, *, now: datetime) -> Sequence[Finding]:
    tenants = await catalog.tenants()
    return [
        *await keyring.check(),
        *await lineage_findings(catalog, keyring),
        *identity_findings(config.identity, trial=keyring.trial),
        *retention_findings(bounds_of(config, keyring), trial=keyring.trial, tenants=tenants),
        *await alert_findings(catalog, config, now=now),
        *await token_findings(catalog, now=now),
        *await recorder_findings(catalog, now=now),
        *await count_findings(catalog),
        *await label_findings(catalog),
    ]


async def count_findings(catalog: Catalog) -> Sequence[Finding]:
    """Compare the counts of recordings with the rows."""
    wrong = await catalog.miscounted()
    if not wrong:
        return [Finding(level="ok", subject="catalog", message="the counts of recordings are those of the rows")]
    message = f"the counts of recordings of {len({tenant for tenant, _, _ in wrong})} tenants are not those of the rows"
    hint = (
        "metrics, offboarding, the sweep guard and lists by size or duration go by wrong numbers until then: "
        "callvault catalog recount"
    )
    return [Finding(level="error", subject="catalog", message=message, hint=hint)]


async def label_findings(catalog: Catalog) -> Sequence[Finding]:
    """Warn of holds that their objects do not show yet, and of recordings whose objects took no label."""
    labels = await catalog.count_unlabelled()
    findings = []
    if labels.waiting:
        message = f"{labels.waiting} holds do not show on all their objects yet; what they hold is kept all the same"
        hint = "callvault serve sets the labels within minutes; if doctor says this for longer, its log says why"
        findings.append(Finding(level="warning", subject="labels", message=message, hint=hint))
    if labels.failed:
        message = f"the objects of {labels.failed} held recordings took no label; they are kept all the same"
        hint = "callvault serve tries again every minute, and its log says what the store answered"
        findings.append(Finding(level="warning", subject="labels", message=message, hint=hint))
    return findings


async def alert_findings(catalog: Catalog, config: Config, *, now: datetime) -> Sequence[Finding]:
    """Warn of tenants whose flags alert nobody, and of alerts unacknowledged for an hour."""
    tenants = await catalog.tenants()
    findings = [
        Finding(
            level="warning",
            subject="alerts",
            message=f"{tenant.id} has no safeguarding webhook: a flag keeps a recording and tells nobody",
            hint=f"callvault tenants set {tenant.id} --safeguarding-webhook URL",
        )
        for tenant in tenants
        if tenant.safeguarding_webhook is None and tenant.ends_at is None
    ]
    webhooks = Webhooks(networks=config.alerts.private_networks)
    findings += [
        Finding(
            level="warning",
            subject="alerts",
            message=f"the safeguarding webhook of {tenant.id} leads to a private or link-local address; it still works",
            hint="name its network in alerts.private_networks, or set another webhook: callvault tenants set",
        )
        for tenant in tenants
        if tenant.safeguarding_webhook is not None and await webhooks.leads_inside(tenant.safeguarding_webhook)
    ]
    waiting = await catalog.alerts_waiting()
    if waiting.oldest is not None and now - waiting.oldest > _LATE:
        message = f"{waiting.count} alerts are not acknowledged, the oldest since {rfc3339(waiting.oldest)}"
        hint = "is the safeguarding webhook reachable? the server's log says what it answered"
        findings.append(Finding(level="error", subject="alerts", message=message, hint=hint))
    return findings


async def token_findings(catalog: Catalog, *, now: datetime) -> Sequence[Finding]:
    """Warn of tokens that expire soon or have lately expired, and of a vault in which no two operators can decide."""
    own = [each for each in await catalog.tokens() if each.role is Role.OPERATOR and each.issued_by is None]
    alone = [
        Finding(
            level="warning",
            subject="tokens",
            message="only one operator's token was not issued by another token: no decision of two people is possible",
            hint="callvault tokens issue --role operator --name NAME --config FILE; then each issues one of two",
        )
    ]
    return [
        *(alone if len(own) < _PEOPLE else ()),
        *(
            Finding(
                level="warning",
                subject="tokens",
                message=f"{token.id}, {token.role.value} of {token.tenant or 'the vault'}, "
                f"{'has expired' if has_expired(token, now=now) else 'expires'} at {rfc3339(expires_at)}",
                hint="give its holder a successor (callvault tokens issue), then revoke it (callvault tokens revoke)",
            )
            for token in await catalog.tokens(expiring_by=now + EXPIRES_SOON)
            if (expires_at := token.expires_at) is not None and now - expires_at < EXPIRES_SOON
        ),
    ]


async def recorder_findings(catalog: Catalog, *, now: datetime) -> Sequence[Finding]:
    """Warn of recorders that sent something else than they declared in the last week."""
    found = await catalog.misdeclared(since=now - _LATELY)
    if not found:
        return ()
    names = {token.id: token.name for token in await catalog.tokens()}
    recorders: dict[tuple[TenantId, TokenId | None], list[Misdeclared]] = {}
    for each in found:
        recorders.setdefault((each.tenant, each.recorder), []).append(each)
    return [
        Finding(
            level="warning",
            subject="recorders",
            message=f"{_recorder(token, names)} of {tenant} sent something else than it declared, within "
            f"{_LATELY.days} days: "
            + ", ".join(f"{each.count} as {each.declared.value} with {_CAME[each.content]}" for each in kept),
            hint="the audio is kept as it came; let the recorder declare what it sends (Content-Type), or send what it "
            "declares; which recordings: callvault audit list --event recording.misdeclared --from -7d",
        )
        for (tenant, token), kept in recorders.items()
    ]


def _recorder(token: TokenId | None, names: Mapping[TokenId, str]) -> str:
    return "a recorder" if token is None else f"{token} ({names[token]})" if token in names else token


async def verify_keyring(config: Config) -> Sequence[Finding]:
    """Open every keyring replica by itself and compare the trees; reads only, beside a server or without one."""
    keyring = await observe_keyring(config, SystemClock())
    try:
        return await keyring.check()
    finally:
        await keyring.close()


async def repair_replica(config: Config, name: str) -> None:
    """Rebuild one keyring replica, named as in the configuration with its path absolute, from the others."""
    await in_thread(refuse_unusable, config, (Piece.ROOT_KEYS, Piece.SECRETS))
    provider = root_keys(config, SystemClock(), os.urandom)
    await recovery.repair_replica(name, replicas=Replicas(keyring_replicas(config)), provider=provider)


# -- files and their owners ---------------------------------------------------------------------------------------

FILES: Final = "files"
"""The subject of findings on owners, modes and paths."""
_OTHERS: Final = 0o077
_EVERYBODY: Final = 0o007
_PUBLIC: Final = frozenset({"tls_cert", "client_ca", "ca_file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFindings:
    """The findings, and the pieces that cannot be opened: their findings are among these."""

    findings: Sequence[Finding]
    closed: frozenset[Piece]


def file_findings(config: Config, config_file: Path | None = None) -> FileFindings:
    """Check owners, modes and disks of the vault's files on this machine; nothing is opened or changed."""
    findings: list[Finding] = []
    closed: set[Piece] = set()
    places = list(places_of(config))
    troubles = [(place, error) for place in places if (error := trouble(place)) is not None]
    spare = (len(config.replicas) - 1) // 2
    openable = sum(place.piece is Piece.KEYRING for place, _ in troubles) <= spare
    for place, error in troubles:
        missing = isinstance(error.__cause__, FileNotFoundError)
        if missing and (place.piece is Piece.CATALOG or (place.piece is Piece.KEYRING and openable)):
            continue  # whoever opens it says what that means
        findings.append(Finding(level="error", subject=FILES, message=error.message, hint=error.hint))
        if place.piece is not Piece.KEYRING or not openable:
            closed.add(place.piece)
    owner = _expected_owner(config)
    findings += _strangers(places, owner)
    findings += _readable(places, config, config_file)
    if not findings:
        message = f"all belong to {name_of(owner)}, and nobody else may read them"
        findings.append(Finding(level="ok", subject=FILES, message=message))
    return FileFindings(findings=[*findings, *disk_findings(config)], closed=frozenset(closed))


def _expected_owner(config: Config) -> int:
    """Return the uid that should own the files: this user's, or for root, who may check any, the data directory's."""
    me = os.geteuid()
    try:
        return config.resolve(None, "").stat().st_uid if me == 0 else me
    except OSError:
        return me


def _strangers(places: Sequence[Place], owner: int) -> Iterator[Finding]:
    """Warn of files of the vault that belong to somebody else."""
    for place in places:
        found: dict[int, list[Path]] = defaultdict(list)
        for path, status in _known(place):
            if status.st_uid != owner and place.piece not in (Piece.TLS, Piece.SECRETS):
                found[status.st_uid].append(path)
        for uid, paths in sorted(found.items()):
            message = f"{_some(paths)} to {name_of(uid)}, and the vault's files to {name_of(owner)}"
            yield Finding(level="warning", subject=FILES, message=message, hint=f"chown -R {owner} {place.path}")


def _some(paths: Sequence[Path]) -> str:
    if len(paths) == 1:
        return f"{paths[0]} belongs"
    return f"{paths[0]} and {len(paths) - 1} more below it belong"


def _readable(places: Sequence[Place], config: Config, config_file: Path | None) -> Iterator[Finding]:
    """Warn of files that others than their owner may read, and of credentials that everybody may read."""
    for place in places:
        if place.piece is Piece.ROOT_KEYS or place.setting.rpartition(".")[2] in _PUBLIC:
            continue  # the provider itself checks the modes of its files; the other files may be readable by all
        mask = _EVERYBODY if place.piece in (Piece.TLS, Piece.SECRETS) else _OTHERS
        if place.piece is Piece.CATALOG and place.path == (config.catalog_path or place.path).parent:
            continue  # the directory may be shared: the file itself is not
        open_ones = [path for path, status in _known(place) if stat.S_IMODE(status.st_mode) & mask]
        if open_ones:
            more = f", and so may {len(open_ones) - 1} more below it" if len(open_ones) > 1 else ""
            message = f"{open_ones[0]} may be read by others than its owner{more}"
            yield Finding(level="warning", subject=FILES, message=message, hint=f"chmod -R go-rwx {place.path}")
    if config_file is not None:
        # The file as it is, without credentials from the environment.
        try:
            carries = _carries_secrets(load_config(config_file, environment={}))
            mode = config_file.stat().st_mode
        except (ConfigError, OSError):
            return
        if carries and stat.S_IMODE(mode) & _EVERYBODY:
            message = f"{config_file} carries a password or key, and everybody on this machine may read it"
            yield Finding(level="warning", subject=FILES, message=message, hint=f"chmod o-rwx {config_file}")


def _carries_secrets(config: Config) -> bool:
    """Tell whether any credential is set."""
    stores = (config.objects.s3, config.keyring.s3, config.backup.s3)
    root = config.keyring.root
    given = (
        config.catalog.url,
        *(store.secret_key for store in stores if store is not None),
        root.pkcs11.pin if root.pkcs11 else None,
        root.transit.token if root.transit else None,
        root.awskms.secret_key if root.awskms else None,
    )
    return any(each is not None for each in given)


def _known(place: Place) -> Iterator[tuple[Path, os.stat_result]]:
    for path in entries(place):
        try:
            yield path, path.stat(follow_symlinks=False)
        except OSError:
            continue


def disk_findings(config: Config) -> Iterator[Finding]:
    """Warn of keyring replicas that would be lost together: on one disk, or in one bucket."""
    together: dict[object, list[str]] = defaultdict(list)
    for name in config.replicas:
        if name.startswith(S3_SCHEME):
            bucket = name.removeprefix(S3_SCHEME).partition("/")[0]
            together[bucket].append(name)
            continue
        try:
            together[Path(name).stat().st_dev].append(name)
        except OSError:
            continue
    for place, names in together.items():
        if len(names) > 1:
            where = "on one disk" if isinstance(place, int) else "in one bucket"
            message = f"{len(names)} keyring replicas are {where}, and are lost with it: {', '.join(names)}"
            hint = "put keyring.replicas on different disks or in buckets of different stores"
            yield Finding(level="warning", subject="keyring", message=message, hint=hint)
