import json

import pytest

from tests.helpers.audiohook_client import CALL_KEY, GOLDEN, MEDIA, OPEN, ORGANIZATION, PROBE, SESSION, TONE, Client
from vault.errors import Invalid
from vault.model import Codec, Container, Media
from vault.protocol.facts.parties import read_parties
from vault.protocol.live.audiohook import AudioHook
from vault.protocol.live.events import MOST, Audio, Broken, Dtmf, Ended, Gap, LeftOut, Paused, Resumed, Say, Started


def machine():
    return AudioHook(session=SESSION, organization=ORGANIZATION)


def opened(**changes):
    client, server = Client(), machine()
    started, said = server.receive(client.open(**changes))
    assert client.heard(said.payload)[0] == "opened"
    return client, server, started


def test_a_session_of_the_reference_client_becomes_events():
    server = machine()
    events = [event for message in GOLDEN for event in server.receive(message)]
    started = events[0]
    assert started == Started(
        call_key=CALL_KEY,
        media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=2, channel_map=("caller", "callee")),
        facts=started.facts,
    )
    facts = read_parties(started.facts)
    assert facts.caller == "+15555551234"
    assert facts.called == "+18005556789"
    assert started.facts.extra["caller_name"] == "John Doe"
    assert started.facts.extra["session_id"] == SESSION
    assert [type(event) for event in events[1:]] == [
        *(Say, Audio, Audio, Audio, Audio, Paused, Say, Say, Resumed, Audio, Audio),
        Ended,
    ]
    assert [event.data for event in events if isinstance(event, Audio)] == [TONE] * 6
    assert events[-1] == Ended(clean=True, reason="end")
    said = [json.loads(event.payload) for event in [*events, *server.closing_messages()] if isinstance(event, Say)]
    assert [(each["type"], each["seq"], each["clientseq"]) for each in said] == [
        ("opened", 1, 1),
        ("pong", 2, 3),
        ("pong", 3, 4),
        ("closed", 4, 6),
    ]
    assert said[0]["parameters"] == {"media": [MEDIA[0]], "startPaused": False}


def test_both_sides_are_preferred_whatever_the_order_of_the_offer():
    _, _, started = opened(media=MEDIA[::-1])
    assert started.media.channel_map == ("caller", "callee")


@pytest.mark.parametrize(
    ("offer", "codec", "sides"),
    [
        (MEDIA[1], Codec.PCMU, ("caller",)),
        (MEDIA[2], Codec.PCMU, ("callee",)),
        ({**MEDIA[0], "channels": ["internal", "external"]}, Codec.PCMU, ("callee", "caller")),
        ({**MEDIA[0], "format": "L16"}, Codec.S16LE, ("caller", "callee")),
    ],
)
def test_the_channel_map_follows_the_accepted_offer(offer, codec, sides):
    _, _, started = opened(media=[{"type": "video"}, offer])
    assert (started.media.codec, started.media.channel_map) == (codec, sides)


@pytest.mark.parametrize("media", [[], None, "PCMU", [{**MEDIA[0], "rate": 16000}], [{**MEDIA[0], "format": "opus"}]])
def test_a_session_without_media_the_vault_keeps_is_refused(media):
    with pytest.raises(Invalid):
        machine().receive(Client().open(media=media))


def test_a_probe_is_answered_and_records_nothing():
    client, server = Client(), machine()
    (said,) = server.receive(client.open(conversationId=PROBE, participant={"id": PROBE, "ani": ""}, media=MEDIA))
    assert client.heard(said.payload) == ("opened", {"media": [MEDIA[0]], "startPaused": False})
    assert server.receive(TONE) == ()
    (said,) = server.receive(client.say("ping"))
    assert client.heard(said.payload)[0] == "pong"
    said, ended = server.receive(client.say("close", reason="end"))
    assert client.heard(said.payload)[0] == "closed"
    assert ended.clean
    assert server.closed(1000) == ()


def test_a_probe_that_offers_no_audio_is_answered_too():
    client, server = Client(), machine()
    (said,) = server.receive(client.open(conversationId=PROBE, participant={"id": PROBE}, media=[]))
    assert client.heard(said.payload) == ("opened", {"media": [], "startPaused": False})


def test_what_comes_while_paused_is_left_to_the_recording_which_may_have_ended_the_pause():
    client, server, _ = opened()
    assert server.receive(client.say("paused")) == (Paused(),)
    assert server.receive(client.say("paused")) == (Paused(),)
    assert server.receive(TONE) == (Audio(TONE),)
    assert server.receive(client.say("dtmf", digit="5")) == (Dtmf(digit="5"),)
    assert server.receive(client.say("discarded", start="PT0S", discarded="PT1S")) == (Gap(missing_ms=1000),)
    assert server.receive(client.say("resumed", start="PT0S", discarded="PT1S")) == (Resumed(),)
    assert server.receive(client.say("resumed", start="PT0S", discarded="PT1S")) == ()
    assert server.receive(TONE) == (Audio(TONE),)


@pytest.mark.parametrize(
    ("discarded", "events"),
    [("PT1.5S", (Gap(missing_ms=1500),)), ("PT0S", ()), ("PT.25S", (Gap(missing_ms=250),))],
)
def test_discarded_audio_is_a_gap(discarded, events):
    client, server, _ = opened()
    assert server.receive(client.say("discarded", start="PT0S", discarded=discarded)) == events


@pytest.mark.parametrize("duration", [None, 1, "PTS", "PT1M", "1", "PT-1S", "PT1e5S", "PT604801S", "PT\u0661S"])
def test_a_duration_that_is_none_is_left_out_and_the_call_goes_on(duration):
    client, server, _ = opened()
    assert server.receive(client.say("discarded", start="PT0S", discarded=duration)) == (LeftOut(Broken.MEMBER),)
    [pong] = server.receive(client.say("ping", position=duration))
    assert json.loads(pong.payload)["clientseq"] == 3


@pytest.mark.parametrize(
    ("reason", "clean"), [("end", True), ("error", False), ("disconnect", False), ("reconnect", False), (["x"], False)]
)
def test_only_a_session_that_ends_with_its_call_is_complete(reason, clean):
    client, server, _ = opened()
    (ended,) = server.receive(client.say("close", reason=reason))
    assert ended.clean is clean
    (said,) = server.closing_messages()
    assert client.heard(said.payload)[0] == "closed"


def test_a_connection_that_is_lost_is_no_end():
    _, server, _ = opened()
    assert server.closed(1006) == (Ended(clean=False, reason="connection_lost"),)
    assert server.closed(1006) == ()


def test_an_update_and_languages_are_answered():
    client, server = Client(), machine()
    _, said = server.receive(client.open(supportedLanguages=True, language="en-GB"))
    assert client.heard(said.payload)[1]["supportedLanguages"] == []
    (said,) = server.receive(client.say("update", language="de-DE"))
    assert client.heard(said.payload) == ("updated", {})


def test_the_clients_complaint_changes_nothing_and_a_message_of_a_later_revision_neither():
    client, server, _ = opened()
    assert server.receive(client.say("error", code=400, message="tough")) == ()
    assert server.receive(client.say("playback_started")) == ()
    assert server.receive(TONE) == (Audio(TONE),)


def test_keys_pressed_are_told():
    client, server, _ = opened()
    assert server.receive(client.say("dtmf", digit="#")) == (Dtmf(digit="#"),)
    assert server.receive(client.say("dtmf", digit="12")) == ()


def test_the_vault_asks_for_the_end_once():
    client, server, _ = opened()
    (said,) = server.refused("completed", "shutting down", begun=True)
    assert client.heard(said.payload) == ("disconnect", {"reason": "completed", "info": "shutting down"})
    assert server.refused("error", "again", begun=True) == ()


def test_a_session_whose_recording_cannot_begin_hears_the_refusal_first():
    client, server = Client(), machine()
    server.receive(client.open())
    (said,) = server.refused("error", "no room", begun=False)
    assert client.heard(said.payload) == ("disconnect", {"reason": "error", "info": "no room"})
    client, server = Client(), machine()
    (said,) = server.receive(client.open(conversationId=PROBE))
    client.heard(said.payload)
    (said,) = server.refused("error", "nothing came", begun=False)
    assert client.heard(said.payload)[0] == "disconnect"


def damaged(change):
    message = json.loads(Client().open())
    change(message)
    return json.dumps(message)


@pytest.mark.parametrize(
    "message",
    [
        TONE,
        "x",
        "[]",
        '{"a":' * 5_000,
        "1" * 5_000,
        " " * 70_000,
        damaged(lambda it: it.update(version="1")),
        damaged(lambda it: it.update(id=SESSION[:-1] + "0")),
        damaged(lambda it: it.update(seq=2)),
        damaged(lambda it: it.update(seq=True)),
        damaged(lambda it: it.update(seq=1.0)),
        damaged(lambda it: it.update(serverseq=1)),
        damaged(lambda it: it.update(serverseq=-1)),
        damaged(lambda it: it.update(position="soon")),
        damaged(lambda it: it.update(parameters=[])),
        damaged(lambda it: it.update(type="paused")),
        damaged(lambda it: it.update(type="unheard_of")),
        damaged(lambda it: it["parameters"].update(organizationId="another")),
        damaged(lambda it: it["parameters"].update(conversationId=None)),
        damaged(lambda it: it["parameters"].update(participant=None)),
        damaged(lambda it: it["parameters"]["participant"].update(id="7")),
    ],
)
def test_what_does_not_open_a_session_is_refused(message):
    with pytest.raises(Invalid):
        machine().receive(message)


def test_a_message_that_is_repeated_is_left_out_and_one_after_a_missing_one_is_taken():
    client, server, _ = opened()
    ping = client.say("ping")
    server.receive(ping)
    assert server.receive(ping) == (LeftOut(Broken.ORDER),)
    client.say("ping")
    assert server.receive(client.say("paused")) == (Paused(),)


@pytest.mark.parametrize(
    "change", [{"version": "3"}, {"id": PROBE}, {"type": 7}, {"seq": True}, {"seq": -1}, {"parameters": []}]
)
def test_a_message_that_cannot_be_read_is_left_out_and_the_call_goes_on(change):
    client, server, _ = opened()
    broken = json.dumps(json.loads(client.say("ping")) | change)
    for each in (broken, "", "{", broken[:-1]):
        assert server.receive(each) == (LeftOut(Broken.FORM),)
        assert server.receive(TONE) == (Audio(TONE),)
    (ended,) = server.receive(client.say("close", reason="end"))
    assert ended.clean


def test_a_message_that_cannot_be_read_and_may_be_a_pause_is_one():
    client, server, _ = opened()
    assert server.receive(client.say("paused")[:-1]) == (LeftOut(Broken.FORM), Paused())
    assert server.receive(client.say("resumed")) == (Resumed(),)


def test_a_storm_of_messages_that_cannot_be_read_ends_the_session():
    _, server, _ = opened()
    for _ in range(MOST):
        server.receive("{")
    with pytest.raises(Invalid, match="could not be read"):
        server.receive("{")


def test_nothing_is_taken_after_the_end():
    client, server, _ = opened()
    server.receive(client.say("close", reason="end"))
    for late in (TONE, client.say("ping"), client.open()):
        with pytest.raises(Invalid):
            server.receive(late)


@pytest.mark.parametrize("name", ["", "../../etc", SESSION + "\n", "\udcff"])
def test_a_session_and_its_organization_are_named_by_uuids(name):
    for names in ({"session": name, "organization": ORGANIZATION}, {"session": SESSION, "organization": name}):
        with pytest.raises(Invalid):
            AudioHook(**names)


def test_credentials_and_unprintable_text_of_an_integration_stay_out_of_the_facts():
    custom = {"token": "cv_secret", "direction": "inbound", "tags": ["admissions", 7, "\ud800\x00night"]}
    participant = {**OPEN["participant"], "ani": "tel:+442079460000", "aniName": "J" * 500}
    _, _, started = opened(customConfig=custom, participant=participant)
    facts = read_parties(started.facts)
    assert "cv_secret" not in str(facts.extra) + str(facts.tags)
    assert (facts.caller, facts.direction, facts.tags) == ("+442079460000", "inbound", ("admissions", "night"))
    assert len(facts.extra["caller_name"]) == 200


def test_numbers_and_names_are_in_no_representation():
    _, server, started = opened()
    assert "5555551234" not in repr(started)
    assert "John" not in repr(started) + repr(server)
