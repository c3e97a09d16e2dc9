"""Recorders that send a call over HTTP while it lasts."""

from tests.helpers.programs import program

TONE = ("-v", "error", "-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=8000")


LIVE = "audiotestsrc is-live=true samplesperbuffer=1600 num-buffers={} ! audio/x-raw,rate=8000,channels=1 ! "


OPUS = "opusenc ! oggmux max-page-delay=100000000 max-delay=100000000 ! "


def gstreamer(vault, key, form, buffers, *more):
    sink = f"souphttpclientsink sync=true location={vault.url(key)}"
    return (program("gst-launch-1.0"), "-q", *(LIVE.format(buffers) + form + sink).split(), *more)
