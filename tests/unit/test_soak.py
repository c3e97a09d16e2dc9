"""What is sampled in `make test` is done whole in `make soak`."""

from pathlib import Path

from tests.helpers import soak

TESTS = Path(__file__).parents[1]
SAMPLING = ("tests.helpers.soak", "Kills", "enumerate_crashes")


def test_a_seed_draws_one_sample_which_has_the_first_write(monkeypatch):
    monkeypatch.setattr(soak, "SOAK", False)
    drawn = soak.steps(60, of="an act")
    assert drawn == soak.steps(60, of="an act") != soak.steps(60, of="another act")
    assert drawn == sorted(set(drawn))
    assert (drawn[0], len(drawn)) == (1, 2)
    monkeypatch.setattr(soak, "SEED", "another day")
    assert drawn != soak.steps(60, of="an act")


def test_a_soak_leaves_nothing_out(monkeypatch):
    monkeypatch.setattr(soak, "SOAK", True)
    assert soak.steps(60, of="an act") == list(range(1, 61))
    assert soak.sample("abc", 1, of="a parameter") == ["a", "b", "c"]
    assert soak.examples(60) == 60


def test_what_samples_is_marked_for_the_soak():
    modules = [
        path
        for folder in ("unit", "contract", "faults", "integration", "cli")
        for path in (TESTS / folder).glob("test_*.py")
    ]
    texts = {path.name: path.read_text() for path in modules if path != Path(__file__)}
    sampling = {name for name, text in texts.items() if any(word in text for word in SAMPLING)}
    assert len(sampling) > 5
    assert {name for name in sampling if "mark.soak" not in texts[name]} == set()
