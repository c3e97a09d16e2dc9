"""What lies below many places in a bucket: all of it goes, nothing beside it, in few requests."""

import asyncio
from collections import Counter, defaultdict
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import Unavailable
from vault.storage.s3.client import delete_group, listed_together

LEAVES = [f"{number:06d}-{'ab' * 16}" for number in range(7)]


class Bucket:
    """A bucket that lists in the order of names or another one, and fails as it is told."""

    def __init__(self, *, versioned=False, order=str, page=1000, failing=(), keeping=(), without=()):
        self.versions: defaultdict[str, list[str]] = defaultdict(list)
        self.uploads: list[tuple[str, str]] = []
        self.asked: Counter[str] = Counter()
        self._ids = (f"v{number}" for number in count())
        self._versioned, self._order, self._page = versioned, order, page
        self._failing, self._keeping, self._without = dict(failing), keeping, without

    def put(self, name):
        self.versions[name] = [*self.versions[name], next(self._ids)] if self._versioned else ["null"]

    async def call(self, operation, **wanted):
        self.asked[operation] += 1
        if operation in self._without:
            raise Unavailable("not here", s3_code="NotImplemented")
        match operation:
            case "list_object_versions":
                entries = [(name, each) for name, known in self.versions.items() for each in known]
                after = wanted.get("KeyMarker"), wanted.get("VersionIdMarker")
                page, more = self._listed(entries, wanted["Prefix"], after)
                found = {"Versions": [{"Key": name, "VersionId": each} for name, each in page]}
                return found | (
                    more and {"IsTruncated": True, "NextKeyMarker": more[0], "NextVersionIdMarker": more[1]}
                )
            case "list_objects_v2":
                entries = [(name, "") for name in self.versions]
                page, more = self._listed(entries, wanted["Prefix"], (wanted.get("ContinuationToken"), ""))
                found = {"Contents": [{"Key": name} for name, _ in page]}
                return found | (more and {"IsTruncated": True, "NextContinuationToken": more[0]})
            case "list_multipart_uploads":
                return {
                    "Uploads": [{"Key": n, "UploadId": u} for n, u in self.uploads if n.startswith(wanted["Prefix"])]
                }
            case "abort_multipart_upload":
                self.uploads.remove((wanted["Key"], wanted["UploadId"]))
            case "delete_object":
                self._delete(wanted)
            case "delete_objects":
                assert len(wanted["Delete"]["Objects"]) <= 1000
                answer = {"Deleted": [], "Errors": []}
                for each in wanted["Delete"]["Objects"]:
                    if code := self._failing.get(each["Key"]):
                        answer["Errors"].append({"Key": each["Key"], "Code": code})
                    else:
                        answer["Deleted"].append({"Key": each["Key"]})
                        self._delete(each)
                return answer
        return None

    def _listed(self, entries, prefix, after):
        """Return a page of (key, id), and the first of the next one, or nothing."""
        known = sorted((each for each in entries if each[0].startswith(prefix)), key=lambda each: self._order(each[0]))
        start = next((place for place, each in enumerate(known) if each == after), 0)
        further = known[start + self._page : start + self._page + 1]
        return known[start : start + self._page], further[0] if further else {}

    def _delete(self, wanted):
        name, version = wanted["Key"], wanted.get("VersionId", "null")
        if name not in self._keeping and version in self.versions[name]:
            self.versions[name].remove(version)
        if not self.versions[name]:
            del self.versions[name]


def by_directory(name):
    return name.split("/")


async def delete(bucket, places):
    outcomes = {}
    for group in listed_together(places):
        outcomes |= await delete_group(bucket.call, group, bypass_governance=False)
    return outcomes


PLACES = st.builds(
    "v1/{}/{}/{}/".format,
    st.sampled_from(["t", "t-1", "t1"]),
    st.sampled_from(["1", "10"]),
    st.sampled_from(["rec_1", "rec_10", "rec_2", "a", "a-b", "a!"]),
)
NAMES = st.builds("{}{}".format, PLACES, st.sampled_from(["0", "0-1", "00", "d/0", "d-/0"]))


@given(
    wanted=st.sets(PLACES),
    names=st.lists(NAMES),
    versioned=st.booleans(),
    order=st.sampled_from([str, by_directory]),
    page=st.integers(1, 4),
    known=st.booleans(),
)
def test_all_below_the_places_goes_and_nothing_beside_them_in_either_order_of_a_listing(
    wanted, names, versioned, order, page, known
):
    bucket = Bucket(versioned=versioned, order=order, page=page)
    for name in names:
        bucket.put(name)
    bucket.uploads = [(name, str(number)) for number, name in enumerate(names[::3])]
    versions = {name: len(each) for name, each in bucket.versions.items()}
    uploads = Counter(name for name, _ in bucket.uploads)

    def inside(name):
        return any(name.startswith(place) for place in wanted)

    outcomes = asyncio.run(delete(bucket, {place: [f"{place}0"] if known else [] for place in wanted}))
    assert outcomes.keys() == wanted
    assert {*bucket.versions} == {name for name in versions if not inside(name)}
    assert Counter(name for name, _ in bucket.uploads) == {n: c for n, c in uploads.items() if not inside(n)}
    told = {each.name: each for found in outcomes.values() for each in found}
    assert all(each.absent for each in told.values())
    assert {*told} == {*filter(inside, versions)} | ({f"{place}0" for place in wanted} if known else set())
    assert all(told[name].versions_deleted == versions[name] + uploads[name] for name in versions if inside(name))


def recordings(number, *, step=1):
    return [f"v1/t/20000/rec_{each:032x}/" for each in range(0, number * step, step)]


async def test_a_thousand_objects_of_many_recordings_take_a_handful_of_requests_and_a_second_look_three():
    for versioned in (False, True):
        bucket = Bucket(versioned=versioned)
        places = {place: [f"{place}{leaf}" for leaf in LEAVES] for place in recordings(142)}
        for name in (each for known in places.values() for each in known):
            bucket.put(name)
        await delete(bucket, places)
        assert not bucket.versions
        assert bucket.asked.total() == 6
        await delete(bucket, places)
        assert bucket.asked.total() == 9


async def test_recordings_far_apart_among_many_others_are_listed_each_for_itself():
    bucket = Bucket()
    for place in recordings(4000):
        for leaf in LEAVES:
            bucket.put(f"{place}{leaf}")
    places = {place: [] for place in recordings(4, step=1000)}
    await delete(bucket, places)
    assert len(bucket.versions) == (4000 - 4) * 7
    # At most two requests a place and listing, where the whole day would take 28.
    assert bucket.asked["list_object_versions"] <= 2 * 2 * len(places)


async def test_a_store_that_lists_in_no_order_is_read_to_the_end():
    order = {}
    bucket = Bucket(order=lambda name: order.setdefault(name, len(order) * 7919 % 28_001))
    for place in recordings(400):
        for leaf in LEAVES:
            bucket.put(f"{place}{leaf}")
    await delete(bucket, dict.fromkeys(recordings(40), ()))
    assert len(bucket.versions) == 360 * 7


async def test_a_key_whose_deletion_failed_is_never_absent_and_keeps_back_its_own_place_only():
    first, second, third = recordings(3)
    names = [f"{place}{leaf}" for place in (first, second, third) for leaf in LEAVES]
    bucket = Bucket(failing={names[1]: "InternalError", names[9]: "AccessDenied", f"{third}gone": "NoSuchKey"})
    for name in names:
        bucket.put(name)
    outcomes = await delete(bucket, {place: [] for place in (first, second, third)})
    assert isinstance(outcomes[first], Unavailable)
    assert "InternalError" in outcomes[first].message
    assert [(each.name, each.detail) for each in outcomes[second] if not each.absent] == [
        (names[9], "1 versions and 0 uploads are left; the store refused 2 deletions (AccessDenied)")
    ]
    assert all(each.absent for each in outcomes[third])
    assert {*bucket.versions} == {names[1], names[9]}


@pytest.mark.parametrize("member", ["Deleted", "Errors", "Versions", "Contents", "Uploads"])
async def test_an_answer_about_what_was_not_asked_for_is_an_error_and_proves_nothing(member):
    (place,) = recordings(1)
    bucket = Bucket()
    bucket.put(f"{place}0")
    foreign = {"Key": "v1/t/20000/rec_other/0", "Code": "InternalError"} if member in {"Deleted", "Errors"} else {}

    async def call(operation, **wanted):
        answer = await bucket.call(operation, **wanted)
        if member in (answer or ()):
            answer[member] = [*answer[member], foreign]
        return answer

    with pytest.raises(Unavailable, match=r"was not asked to delete|without its key"):
        await delete_group(call, {place: []}, bypass_governance=False)


async def test_what_the_store_acknowledges_and_does_not_delete_is_not_absent():
    (place,) = recordings(1)
    bucket = Bucket(keeping={f"{place}0"})
    bucket.put(f"{place}0")
    assert [each.absent for each in (await delete(bucket, {place: []}))[place]] == [False]


async def test_a_store_without_these_requests_is_deleted_from_name_by_name_and_looked_at_again():
    (place,) = recordings(1)
    for without in (["delete_objects"], ["delete_objects", "list_object_versions", "list_multipart_uploads"]):
        bucket = Bucket(without=without)
        for leaf in LEAVES:
            bucket.put(f"{place}{leaf}")
        found = (await delete(bucket, {place: []}))[place]
        assert [(each.versions_deleted, each.absent) for each in found] == [(1, True)] * 7
        assert not bucket.versions
        assert bucket.asked["delete_object"] == 7


async def test_a_place_with_more_than_a_page_is_read_to_its_end():
    first, second = recordings(2)
    bucket = Bucket(page=3)
    for leaf in LEAVES:
        bucket.put(f"{first}{leaf}")
        bucket.put(f"{second}{leaf}")
    assert [len(found) for found in (await delete(bucket, {first: [], second: []})).values()] == [7, 7]
    assert not bucket.versions
