"""Replays the stored journal directories through the adapter."""

import pytest

from tests.helpers.journals import journal_files, make
from tests.vectors import generate
from tests.vectors.encoding import from_json, plaintext_facts
from tests.vectors.make_journal import IDS
from vault.errors import ConfigError, Shredded
from vault.format.journal import file_name
from vault.model import DataKey

NUMBERS = {"the file between was removed, so its bytes were released": [1, 3]}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in generate.load("journal")])
async def test_replay_hands_out_exactly_what_the_vector_states(case, tmp_path):
    def keys(place):
        material = case["data_keys"][IDS[chr(place.leaf)]]
        if material is None:
            raise Shredded("gone")
        return DataKey(bytes.fromhex(material))

    for number, file in zip(NUMBERS.get(case["name"], [1, 2]), case["files"], strict=False):
        (tmp_path / file_name(number)).write_bytes(from_json(file))
    journal = make(tmp_path)
    try:
        if case["outcome"] == "format":
            with pytest.raises(ConfigError):
                await journal.replay(keys, skip=lambda _: False)
            return
        found = sorted(await journal.replay(keys, skip=lambda _: False), key=lambda one: one.opening.recording)
        assert [
            {
                "recording": one.opening.recording,
                "first_offset": one.first_offset,
                "durable": one.durable,
                "ended": one.ended,
                **plaintext_facts(one.entry.read(one.first_offset, one.durable)),
            }
            for one in found
        ] == case["recordings"]
        for one in found:
            one.entry.close()
    finally:
        await journal.close()
    kept = [path.suffix for path in journal_files(tmp_path)]
    damaged = case["outcome"] in {"tampered", "wrong_position"}
    assert (kept or [""])[:1] == ([".damaged"] if damaged else [".cvj"] if case["outcome"] == "format" else [""])
