import base64
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest

from cli import audit
from cli.main import main
from tests.helpers.certificates import GONE, ISSUER, STRANGER, final, object_list, provisional
from vault.certificates.audit_chain import GENESIS, extend_chain, instant
from vault.certificates.batch import BatchStatement, Membership, Tree, leaf_hash
from vault.certificates.canonical import canonical_json
from vault.certificates.document import Issuer
from vault.crypto.signing import encode_base64url
from vault.model import AuditEvent

NOON = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "issuer.pub"
    path.write_bytes(ISSUER.public.to_pem())
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "deleted.jws"
    path.write_text(Issuer(ISSUER).issue(final()) + "\n")
    return path


def test_a_genuine_certificate_is_verified_and_explained(certificate: Path, key: Path, capsys) -> None:
    assert main(["certificates", "verify", str(certificate), "--key", str(key)]) == 0
    shown = capsys.readouterr().out
    assert ISSUER.key_id in shown
    assert shown.endswith("verified\n")


def test_a_certificate_signed_in_a_batch_says_so(tmp_path: Path, key: Path, capsys) -> None:
    document = canonical_json(final())
    leaves = [leaf_hash(document), leaf_hash(b"another")]
    tree = Tree(leaves)
    statement = BatchStatement(batch_id="bat_" + "0" * 32, issued_at=GONE, size=2, root=tree.root.hex())
    signed = Issuer(ISSUER).issue_batch(statement)
    path = tmp_path / "member.jws"
    for index, code in ((0, 0), (1, 5)):
        membership = Membership(statement=signed, index=index, path=tree.path(index))
        path.write_text(Issuer(ISSUER).issue_member(document, membership))
        assert main(["certificates", "verify", str(path), "--key", str(key)]) == code
        assert ("over 2 certificates" in capsys.readouterr().out) == (code == 0)


def test_verification_answers_programs_with_what_was_signed(certificate: Path, key: Path, capsys) -> None:
    assert main(["certificates", "verify", str(certificate), "--key", str(key), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verified"], shown["status"], shown["key_id"]) == (True, "final", ISSUER.key_id)
    assert shown["certificate"]["certificate_id"] == final().certificate_id


def test_a_provisional_certificate_says_so(tmp_path: Path, key: Path, capsys) -> None:
    path = tmp_path / "first.jws"
    path.write_text(Issuer(ISSUER).issue(provisional()))
    assert main(["certificates", "verify", str(path), "--key", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "provisional"


def test_the_key_may_be_a_jwk(certificate: Path, tmp_path: Path) -> None:
    path = tmp_path / "issuer.jwk"
    path.write_text(json.dumps({"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(ISSUER.public.raw)}))
    assert main(["certificates", "verify", str(certificate), "--key", str(path)]) == 0


def test_another_issuers_key_does_not_verify(certificate: Path, tmp_path: Path) -> None:
    path = tmp_path / "stranger.pub"
    path.write_bytes(STRANGER.public.to_pem())
    assert main(["certificates", "verify", str(certificate), "--key", str(path)]) == 5


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_certificate_changed_anywhere_is_refused(certificate: Path, key: Path, part: int, capsys) -> None:
    parts = certificate.read_text().strip().split(".")
    raw = bytearray(base64.urlsafe_b64decode(parts[part] + "=" * (-len(parts[part]) % 4)))
    raw[len(raw) // 2] ^= 1
    parts[part] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    certificate.write_text(".".join(parts))
    assert main(["certificates", "verify", str(certificate), "--key", str(key)]) == 5
    assert "verified" not in capsys.readouterr().out


def test_a_file_that_holds_more_than_the_certificate_is_refused(certificate: Path, key: Path, capsys) -> None:
    text = certificate.read_bytes()
    for more in (b" " + text, text + b"\n", text.strip() + b" ", b"\xef\xbb\xbf" + text):
        certificate.write_bytes(more)
        assert main(["certificates", "verify", str(certificate), "--key", str(key)]) == 5
        assert "(rule F1)" in capsys.readouterr().err
    certificate.write_bytes(text.strip())
    assert main(["certificates", "verify", str(certificate), "--key", str(key)]) == 0


def test_the_list_of_objects_is_held_against_the_certificate(certificate: Path, key: Path, capsys) -> None:
    path = certificate.with_name("objects.json")
    line = ["certificates", "verify", str(certificate), "--key", str(key), "--objects", str(path)]
    path.write_bytes(canonical_json(object_list(final())) + b"\n")
    assert main(line) == 0
    assert "2 objects" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b"0.seg", b"9.seg"))
    assert main(line) == 5
    assert "(rule L1)" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "code"), [("", 2), ("not a jws", 5), ("caf\u00e9.b.c", 5)])
def test_a_file_that_is_no_certificate_is_refused(certificate: Path, key: Path, content: str, code: int) -> None:
    certificate.write_text(content)
    assert main(["certificates", "verify", str(certificate), "--key", str(key)]) == code


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kty":"RSA"}', "-----BEGIN NONSENSE-----"])
def test_a_file_that_is_no_key_is_refused(certificate: Path, key: Path, content: str) -> None:
    key.write_text(content)
    assert main(["certificates", "verify", str(certificate), "--key", str(key)]) == 5


def test_a_missing_file_is_a_usage_error(certificate: Path, key: Path) -> None:
    assert main(["certificates", "verify", "/nonexistent", "--key", str(key)]) == 2
    assert main(["certificates", "verify", str(certificate), "--key", "/nonexistent"]) == 2


def trail(count: int = 5, tenants: Sequence[str | None] = ()) -> list[dict[str, object]]:
    events = [
        AuditEvent(
            event="access.play",
            actor=f"tok {number}",
            outcome="ok",
            purpose="complaint",
            tenant=tenant,
            detail={"n": number},
        )
        for number, tenant in enumerate(tenants or [None] * count)
    ]
    return [
        {
            **asdict(entry.event),
            "seq": entry.seq,
            "at": instant(entry.at),
            "previous_sha256": entry.previous_sha256,
            "sha256": entry.sha256,
        }
        for entry in extend_chain(GENESIS, events, at=NOON)
    ]


def written(tmp_path: Path, lines: list[dict[str, object]]) -> str:
    path = tmp_path / "audit.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_an_untouched_trail_is_verified_to_its_head(tmp_path: Path, capsys) -> None:
    lines = trail()
    assert main(["audit", "verify", written(tmp_path, lines), "--json"]) == 0
    head = f"5:{lines[-1]['sha256']}"
    assert json.loads(capsys.readouterr().out) == {"verified": True, "entries_through": 5, "head": head}


def test_a_changed_entry_is_named(tmp_path: Path, capsys) -> None:
    lines = trail()
    lines[2]["outcome"] = "refused"
    assert main(["audit", "verify", written(tmp_path, lines)]) == 5
    assert "audit entry 3" in capsys.readouterr().err


def test_a_missing_entry_is_named(tmp_path: Path, capsys) -> None:
    lines = trail()
    del lines[2]
    assert main(["audit", "verify", written(tmp_path, lines)]) == 5
    assert "audit entry 4 follows entry 2" in capsys.readouterr().err


def test_a_cut_off_end_shows_against_a_head_noted_earlier(tmp_path: Path) -> None:
    lines = trail()
    short = written(tmp_path, lines[:3])
    assert main(["audit", "verify", short]) == 0
    assert main(["audit", "verify", short, "--expect", f"5:{lines[-1]['sha256']}"]) == 5
    assert main(["audit", "verify", written(tmp_path, lines), "--expect", f"3:{lines[2]['sha256']}"]) == 0


def test_an_export_can_continue_an_earlier_one(tmp_path: Path) -> None:
    lines = trail()
    rest = written(tmp_path, lines[3:])
    assert main(["audit", "verify", rest]) == 5
    assert main(["audit", "verify", rest, "--after", f"3:{lines[2]['sha256']}"]) == 0


def test_a_tenants_own_export_is_verified_as_its_part_of_the_trail(tmp_path: Path, capsys) -> None:
    lines = trail(tenants=[None, "acme", "acme", "other", "acme"])
    part = [line for line in lines if line["tenant"] == "acme"]
    assert main(["audit", "verify", written(tmp_path, part)]) == 0
    shown = capsys.readouterr()
    assert "entries of one tenant, a part of the trail: acme" in shown.out
    assert "whether any entry was left out" in shown.err
    head = f"5:{lines[-1]['sha256']}"
    assert main(["audit", "verify", written(tmp_path, part), "--expect", head, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "verified": True, "part": True, "tenant": "acme", "entries": 3, "links": 1, "head": head
    }  # fmt: skip
    part[1]["outcome"] = "refused"
    assert main(["audit", "verify", written(tmp_path, part)]) == 5
    assert "audit entry 3 does not match its hash" in capsys.readouterr().err


def test_a_filtered_export_is_verified_if_it_is_said_to_be_a_part(tmp_path: Path, capsys) -> None:
    some = written(tmp_path, trail()[::2])
    assert main(["audit", "verify", some]) == 5
    assert "--part" in capsys.readouterr().err
    assert main(["audit", "verify", some, "--part"]) == 0
    assert main(["audit", "verify", some, "--part", "--after", f"3:{'0' * 64}"]) == 2


@pytest.mark.parametrize("head", ["5", "x:y", "5:abc"])
def test_a_head_that_is_none_is_a_usage_error(tmp_path: Path, head: str) -> None:
    assert main(["audit", "verify", written(tmp_path, trail()), "--expect", head]) == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"seq": "1"},
        {"seq": True},
        {"detail": []},
        {"actor": None},
        {"role": 7},
        {"at": "yesterday"},
        {"at": 5},
        {"sha256": "zz"},
        {"sha256": None},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, capsys, damage: dict[str, object]) -> None:
    lines = trail(2)
    lines[1].update(damage)
    assert main(["audit", "verify", written(tmp_path, lines)]) == 5
    assert "line 2 of the export is not an audit entry" in capsys.readouterr().err


def test_a_line_that_is_not_json_is_named(tmp_path: Path, capsys) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("{}\n[\n")
    assert main(["audit", "verify", str(path)]) == 5
    assert "line 1 of the export" in capsys.readouterr().err


def test_an_export_from_a_stranger_gives_one_clear_error_and_no_control_characters(tmp_path: Path, capsys) -> None:
    line = json.dumps(trail(1)[0])
    path = tmp_path / "audit.jsonl"
    detail = '"detail": {"n": 0}'
    assert detail in line
    for hostile in (
        line.replace("2026-11-24T12:00:00.123456Z", "0001-01-01T00:00:00+23:59"),
        line.replace("123456Z", "123456+00:00"),
        line.replace("123456Z", "123456"),
        line.replace('"seq": 1', f'"seq": {"9" * 4000}'),
        line.replace('"seq": 1', '"seq": 0'),
        line.replace('"seq": 1', '"seq": 7, "seq": 1'),
        line.replace(detail, '"detail": {"n": 1, "n": 0}'),
        *(
            line.replace(detail, f'"detail": {{"n": {value}}}')
            for value in ("1e999", "NaN", "9" * 400, r'"\ud800"', "[" * 900 + "]" * 900)
        ),
        "[" * 1_000_000,
        line.encode("utf-16"),
        b"\xef\xbb\xbf" + line.encode(),
        b"\xff",
        bytes(1000),
    ):
        path.write_bytes(hostile if isinstance(hostile, bytes) else hostile.encode())
        assert main(["audit", "verify", str(path)]) == 5, hostile[:300]
        shown = capsys.readouterr()
        assert not shown.out
        assert len(shown.err) < 200
        assert shown.err.removesuffix("\n").isprintable()


def test_a_name_that_would_drive_the_terminal_is_shown_as_text(tmp_path: Path, capsys) -> None:
    lines = trail(tenants=[None, "a\x1b[2Jb\x9b1m\u202e"])[1:]
    assert main(["audit", "verify", written(tmp_path, lines)]) == 0
    assert r"a\x1b[2Jb\x9b1m\x202e" in capsys.readouterr().out


def test_an_export_is_read_line_by_line_also_from_a_pipe(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(audit, "_MAX_LINE_BYTES", 1000)
    lines = trail(50)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    writing = Thread(target=pipe.write_text, args=(text,))
    writing.start()
    assert main(["audit", "verify", str(pipe)]) == 0
    writing.join()
    assert f"50:{lines[-1]['sha256']}" in capsys.readouterr().out
    assert main(["audit", "verify", "/dev/zero"]) == 2
    assert "has a line of more than 1000 B" in capsys.readouterr().err


def test_a_list_with_a_million_strange_members_is_refused_in_a_line(tmp_path: Path, capsys) -> None:
    deleted, key = tmp_path / "deleted.jws", tmp_path / "issuer.pub"
    deleted.write_text(Issuer(ISSUER).issue(final()))
    key.write_bytes(ISSUER.public.to_pem())
    listed = tmp_path / "objects.json"
    line = ["certificates", "verify", str(deleted), "--key", str(key), "--objects", str(listed)]
    strange = json.dumps({f"\x1b{number:05d}": 0 for number in range(10_000)}, separators=(",", ":"))
    deep = "[" * 100_000
    for text in (strange, f'{{"objects":{deep}', '{"objects":1e999}', "[]", "\ud800", '{"objects":[{},{}]}'):
        listed.write_bytes(text.encode("utf-8", "surrogatepass"))
        assert main(line) == 5
        shown = capsys.readouterr().err
        assert len(shown) < 300, text[:30]
        assert shown.removesuffix("\n").isprintable()
