"""Transcripts of what real recorders send, as a hostile or broken line would deliver them."""

import random


def mutated(transcript, seed):
    """Return a copy of a list of messages with one to four of them flipped, dropped, doubled, swapped or cut."""
    chance = random.Random(seed)
    messages = list(transcript)
    for _ in range(chance.randint(1, 4)):
        if not messages:
            break
        at = chance.randrange(len(messages))
        match chance.choice(("flip", "drop", "double", "swap", "cut", "stop")):
            case "flip":
                messages[at] = _flipped(messages[at], chance)
            case "drop":
                del messages[at]
            case "double":
                messages.insert(at, messages[at])
            case "swap":
                other = chance.randrange(len(messages))
                messages[at], messages[other] = messages[other], messages[at]
            case "cut":
                messages[at] = messages[at][: chance.randint(0, len(messages[at]))]
            case _:
                del messages[at:]
    return messages


def _flipped(message, chance):
    """Change one to eight characters or bytes."""
    if not message:
        return message
    text = isinstance(message, str)
    units = list(message)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(units))
        units[at] = chr(chance.choice((0, 34, 123, 125, 0x7F, 0xE9, 0x20AC))) if text else chance.randrange(256)
    return "".join(units) if text else bytes(units)
