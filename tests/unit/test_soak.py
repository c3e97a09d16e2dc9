"""What is sampled in `make test` is done whole in `make soak`."""

from pathlib import Path

from tests.helpers import soak

TESTS = Path(__file__).parents[1]
SAMPLING = ("tests.helpers.soak", "Kills", "enumerate_crashes")


def values_of(test):
    (each,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return [value.values for value in each.args[1]]


def test_a_seed_draws_one_sample_for_each_test_and_another_day_draws_another(monkeypatch):
    monkeypatch.setattr(soak, "SOAK", False)
    monkeypatch.setattr(soak, "SEED", "a day")
    drawn = soak.steps(60, of="an act")
    assert drawn == soak.steps(60, of="an act") != soak.steps(60, of="another act")
    assert len(drawn) == 1
    assert {soak.steps(3, of=f"act {number}")[0] for number in range(100)} == {1, 2, 3}
    monkeypatch.setattr(soak, "SEED", "another day")
    assert drawn != soak.steps(60, of="an act")


def parametrized():
    @soak.sampled("letter", {"a": "A", "b": "B"})
    def a_test(): ...

    return a_test


def test_a_sampled_parameter_is_one_of_its_values_and_marked_for_the_soak(monkeypatch):
    monkeypatch.setattr(soak, "SOAK", False)
    a_test = parametrized()
    [[drawn]] = values_of(a_test)
    assert drawn in {"A", "B"}
    assert "soak" in {mark.name for mark in a_test.pytestmark}


def test_a_soak_leaves_nothing_out(monkeypatch):
    monkeypatch.setattr(soak, "SOAK", True)
    assert soak.steps(60, of="an act") == list(range(1, 61))
    assert soak.sample("abc", 1, of="a parameter") == ["a", "b", "c"]
    assert soak.examples(60) == 60
    assert values_of(parametrized()) == [("A",), ("B",)]


def test_what_samples_is_marked_for_the_soak():
    modules = [
        path
        for folder in ("unit", "contract", "faults", "integration", "cli")
        for path in (TESTS / folder).glob("test_*.py")
    ]
    texts = {path.name: path.read_text() for path in modules if path != Path(__file__)}
    sampling = {name for name, text in texts.items() if any(word in text for word in SAMPLING)}
    assert len(sampling) > 5
    marks = ("mark.soak", "@sampled(", "@MODES")
    assert {name for name in sampling if not any(mark in texts[name] for mark in marks)} == set()
