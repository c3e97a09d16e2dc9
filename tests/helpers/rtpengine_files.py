"""Files as rtpengine-recording sends them."""

import time

from tests.helpers.programs import program

CALL = "1-4242@192.0.2.7"


FILE = "1-4242%40192.0.2.7-1c07bd2c44bfb1c9"


STARTED = round(time.time() - 60, 3)


KEY = f"{CALL}~{CALL}-1c07bd2c44bfb1c9-mix.wav"


def headers(**changes):
    """Return the headers that `notify_push_output` adds, as curl's arguments."""
    sent = {
        "Call-ID": CALL,
        "File-Name": f"{FILE}-mix.wav",
        "Full-File-Name": f"/var/lib/rtpengine-recording/{FILE}-mix.wav",
        "File-Format": "wav",
        "Kind": "mixed",
        "Call-Start-Time": f"{STARTED:.06f}",
        "Stream-Start-Time": f"{STARTED + 1:.06f}",
        "Call-End-Time": f"{STARTED + 60:.06f}",
        "Stream-End-Time": f"{STARTED + 60:.06f}",
        "Call-Metadata": "from:+441632960001|to:01632960100|queue:admissions",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return [word for name, value in sent.items() if value for word in ("-H", f"X-Recording-{name}: {value}")]


def notify(vault, *arguments, token=None, **changes):
    """Return curl's command line for one notification; the token stands in the address, as in `notify-uri`."""
    shown = ("-sS", "-L", "--max-redirs", "5", "-A", "", "-w", "\n%{http_code}")
    return (program("curl"), *shown, *headers(**changes), *arguments, vault.url("rtpengine", token=token))
