"""Programs that upload over HTTP: curl, ffmpeg, GStreamer and tus clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cli.setups.place import File, Place, Recorder

_UPLOAD: Final = "/v1/ingest/{tenant}/{call_key}"
# A process's arguments are everybody's to read; what comes through a descriptor is not.
_HIDDEN: Final = """-K <(printf 'header = "Authorization: Bearer %s"\\n' "$CALLVAULT_TOKEN")"""


def _curl(place: Place) -> tuple[File, ...]:
    script = (
        place.shell()
        + f"""
# Usage: some-recorder | ./record.sh CALL_KEY        G.711 µ-law, 8000 Hz, while the call runs
curl --fail --silent --show-error --upload-file - \\
     {_HIDDEN} \\
     --header 'Content-Type: audio/basic' \\
     "{place.url}/$1"
"""
    )
    return (File(path="record.sh", content=script),)


def _ffmpeg(place: Place) -> tuple[File, ...]:
    script = (
        place.shell()
        + f"""
# Usage: ./record.sh CALL_KEY INPUT        INPUT is anything ffmpeg reads: a file, a device, an RTP session
"${{FFMPEG:-ffmpeg}}" -nostdin -hide_banner -loglevel warning -re -i "$2" \\
    -ac 1 -ar 8000 -f mulaw -method PUT -content_type audio/basic \\
    -headers "Authorization: Bearer $CALLVAULT_TOKEN"$'\\r\\n' \\
    "{place.url}/$1"
"""
    )
    piped = (
        place.shell()
        + f"""
# Usage: ./record-piped.sh CALL_KEY INPUT        the same through curl, which fails if the vault refuses
"${{FFMPEG:-ffmpeg}}" -nostdin -hide_banner -loglevel warning -re -i "$2" -ac 1 -ar 8000 -f mulaw - |
    curl --fail --silent --show-error --upload-file - \\
         {_HIDDEN} \\
         --header 'Content-Type: audio/basic' \\
         "{place.url}/$1"
"""
    )
    return (File(path="record.sh", content=script), File(path="record-piped.sh", content=piped))


def _gstreamer(place: Place) -> tuple[File, ...]:
    address = replace(place, token=None).url_with_token
    script = (
        place.shell()
        + f"""
# Usage: ./record.sh CALL_KEY FILE        put another source in the place of the first two for a live call
gst-launch-1.0 -q filesrc location="$2" ! decodebin ! audioconvert ! audioresample ! opusenc ! oggmux \\
    ! souphttpclientsink sync=true location="{address}/$1"
"""
    )
    return (File(path="record.sh", content=script),)


def _tus(place: Place) -> tuple[File, ...]:
    given = f"'{place.token}'" if place.token else "process.env.CALLVAULT_TOKEN"
    script = f"""// Usage: node upload.mjs CALL_KEY FILE        npm install tus-js-client
import {{ createReadStream, statSync }} from 'node:fs'
import {{ Upload }} from 'tus-js-client'

const [callKey, file] = process.argv.slice(2)

new Upload(createReadStream(file), {{
  endpoint: '{place.url}/tus',
  headers: {{ Authorization: `Bearer ${{{given}}}` }},
  metadata: {{ call_key: callKey, filename: file, filetype: 'audio/wav' }},
  uploadSize: statSync(file).size,
  retryDelays: [0, 1000, 3000, 5000, 10000],
  onError(error) {{
    console.error(String(error.originalResponse?.getBody() ?? error))
    process.exit(1)
  }},
  onSuccess() {{
    console.log(this.metadata.call_key, 'is durable')
  }},
}}).start()
"""
    return (File(path="upload.mjs", content=script),)


RECORDERS: Final = (
    Recorder(
        name="curl",
        title="curl",
        source="https://curl.se/docs/manpage.html",
        route=_UPLOAD,
        files=_curl,
        notes=(
            "curl sends while it reads, so the call is kept as it runs. It exits with 22 if the vault refuses.",
            "After a break, ask with --head how many bytes are durable and send the rest with Upload-Offset.",
        ),
    ),
    Recorder(
        name="ffmpeg",
        title="ffmpeg",
        source="https://ffmpeg.org/ffmpeg-protocols.html#http",
        route=_UPLOAD,
        files=_ffmpeg,
        notes=(
            "ffmpeg exits with 0 even if the vault refuses.",
            "Its arguments, token included, are everybody's to read on its machine. The piped form has neither fault.",
        ),
    ),
    Recorder(
        name="gstreamer",
        title="GStreamer",
        source="https://gstreamer.freedesktop.org/documentation/soup/souphttpclientsink.html",
        route=_UPLOAD,
        files=_gstreamer,
        notes=(
            "The sink sends one PUT after another. The last page of Ogg ends the recording; others end truncated.",
            "Without sync=true the sink may drop what is queued last, and with it the end.",
            "The token goes into the address as userinfo: user-id and user-pw sent nothing in 1.22.",
            "Its arguments, token included, are everybody's to read on its machine.",
        ),
    ),
    Recorder(
        name="tus",
        title="tus-js-client",
        source="https://github.com/tus/tus-js-client/blob/main/docs/api.md",
        route="/v1/ingest/{tenant}/tus",
        files=_tus,
        notes=(
            "Any client of tus 1.0 works: the address takes creation, offsets, checksums and deferred lengths.",
            "In a web page, @uppy/tus does too, once the tenant lists the page: callvault tenants set … --origin …",
        ),
    ),
)
