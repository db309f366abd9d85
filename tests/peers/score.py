"""How well speech is heard: PESQ (ITU-T P.862.2, wideband, 1 to 4.6) and STOI (0 to 1).

    python tests/peers/score.py SPOKEN.wav REFERENCE.f32 HEARD.f32

SPOKEN is said over and over; REFERENCE and HEARD are recordings of it at 48 kHz, 32-bit floats, one as it should be heard: of
that, what fits SPOKEN is compared with what fits it in the other. Where in the loop a recording begins is chance.
"""

import json
import sys
import wave

import numpy as np
from pesq import pesq
from pystoi import stoi
from scipy.signal import resample_poly

RATE = 16_000
# Samples that are fitted in time together, and how far around they are looked for.
PART = RATE // 2
AROUND = RATE // 8


def spoken(path):
    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768
        return resample_poly(samples, RATE, file.getframerate())


def recorded(path):
    return resample_poly(np.fromfile(path, dtype="<f4").astype(float), 1, 3)


def match(sound, to):
    """Where in `sound` what is in `to` begins."""
    size = 1 << (len(sound) + len(to)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(to, size)), size)
    return int(np.argmax(likeness[: len(sound) - len(to) + 1]))


def fit(sound, to):
    """
    The part of a recording that fits all of `to`, which is shorter than it. A receiver stretches sound now and then, so each
    half second is looked for again, a little way around where it should be.
    """
    start = match(sound, to)
    parts = []
    for at in range(0, len(to), PART):
        part = to[at : at + PART]
        first = max(0, start + at - AROUND)
        around = sound[first : start + at + len(part) + AROUND]
        found = first + (match(around, part) if len(around) > len(part) else 0)
        parts.append(sound[found : found + len(part)])
        start = found - at if np.max(np.abs(part)) > 0.05 else start
    fitted = np.concatenate(parts)
    return np.pad(fitted, (0, len(to) - len(fitted)))


def score(reference, heard):
    return {"pesq": round(float(pesq(RATE, reference, heard, "wb")), 2), "stoi": round(float(stoi(reference, heard, RATE)), 3)}


def main():
    said, reference, heard = spoken(sys.argv[1]), recorded(sys.argv[2]), recorded(sys.argv[3])
    best = fit(reference, said)
    json.dump(score(best, fit(heard, best)), sys.stdout)


main()
