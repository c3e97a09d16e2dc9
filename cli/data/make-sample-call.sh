#!/bin/sh
# Makes sample-call.ulaw: a short telephone dialogue between a caller (left) and an AI receptionist (right).
# Needs espeak-ng and sox. The same versions of both give the same bytes: no dither, no random numbers.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/sample-call.ulaw}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

turn=0
# say CHANNEL VOICE PITCH WORDS_PER_MINUTE PAUSE_BEFORE_SECONDS TEXT
# Appends the words to one channel and equally long silence to the other.
say() {
    turn=$((turn + 1))
    espeak-ng -v "$2" -p "$3" -s "$4" -w "$work/spoken.wav" "$6"
    # A telephone passes 300 to 3400 Hz; the silence espeak-ng adds at the ends is cut so that turns follow naturally.
    sox -D "$work/spoken.wav" -r 8000 -c 1 -b 16 "$work/words.wav" \
        highpass 300 lowpass 3400 silence 1 0.01 0.5% reverse silence 1 0.01 0.5% reverse norm -5 pad "$5" 0
    sox -D "$work/words.wav" "$work/quiet.wav" vol 0
    case $1 in
        caller) spoken=left quiet=right ;;
        receptionist) spoken=right quiet=left ;;
    esac
    cp "$work/words.wav" "$work/$spoken-$(printf %02d "$turn").wav"
    cp "$work/quiet.wav" "$work/$quiet-$(printf %02d "$turn").wav"
}

caller() { say caller en-gb-x-rp+m3 38 184 "$@"; }
receptionist() { say receptionist en-gb+f3 58 178 "$@"; }

receptionist 0.40 "Harrowmere College admissions, this call is recorded. How can I help?"
caller       0.45 "Hello, is the open day still this Saturday?"
receptionist 0.40 "It is, from ten until three. Shall I book you in?"
caller       0.35 "Please. My number is oh two oh, seven nine four six, oh one two three."
receptionist 0.40 "Thank you, you are booked. Goodbye!"
caller       0.30 "Bye."

sox -D "$work"/left-*.wav "$work/left.wav"
sox -D "$work"/right-*.wav "$work/right.wav"
sox -D -M "$work/left.wav" "$work/right.wav" -t raw -r 8000 -e u-law -c 2 "$out" pad 0 0.5
