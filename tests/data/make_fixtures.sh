#!/bin/sh
# Speaks every sentence of texts.json with flite (apt install flite) into its WAV file:
# 16 kHz mono 16 bit, with 0.3 s of digital silence before and after.  Flite is
# deterministic: the same version makes the same bytes.  Run it after changing texts.json.
set -eu
cd "$(dirname "$0")"
for name in $(python3 -c 'import json; print(*json.load(open("texts.json")))'); do
    export name
    text=$(python3 -c 'import json, os; print(json.load(open("texts.json"))[os.environ["name"]]["spoken"])')
    voice=$(python3 -c 'import json, os; print(json.load(open("texts.json"))[os.environ["name"]]["voice"])')
    flite -voice "$voice" -t "$text" -o spoken.tmp.wav
    python3 - "$name" <<'PYTHON'
import sys
import wave

with wave.open("spoken.tmp.wav") as spoken:
    assert spoken.getparams()[:3] == (1, 2, 16_000), spoken.getparams()
    pcm = spoken.readframes(spoken.getnframes())
samples = memoryview(pcm).cast("h")
loud = [at for at, sample in enumerate(samples) if abs(sample) > 30]
silence = bytes(2 * 16_000 * 3 // 10)
with wave.open(sys.argv[1], "wb") as padded:
    padded.setparams((1, 2, 16_000, 0, "NONE", ""))
    padded.writeframes(silence + pcm[2 * loud[0] : 2 * (loud[-1] + 1)] + silence)
PYTHON
done
rm spoken.tmp.wav
