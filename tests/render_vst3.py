"""Renders the VST3 with a sidechain in DawDreamer, to compare it with the CLAP.

    pip install dawdreamer soundfile numpy
    python tests/render_vst3.py target/bundled/Graft.vst3 MAIN.wav SIDECHAIN.wav -o OUT.wav \
        [--harmony H] [--rhythm R] [--block N] [--compare CLAP.wav]

Both inputs have the same sample rate. The reported latency is compensated, so OUT.wav is aligned with
MAIN.wav, as is the output of `cargo xtask remix MAIN.wav SIDECHAIN.wav -o CLAP.wav --host`. With
--compare, prints the level of the difference in dB relative to CLAP.wav, and exits with code 1
above -80 dB.
"""

import argparse
import sys

import dawdreamer
import numpy as np
import soundfile


def read_stereo(path):
    audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(np.repeat(audio, 3 - audio.shape[1], axis=1).T[:2]), rate_hz


def render(args):
    main, rate_hz = read_stereo(args.main)
    sidechain, sidechain_rate_hz = read_stereo(args.sidechain)
    if sidechain_rate_hz != rate_hz:
        sys.exit(f"expected a sidechain at {rate_hz} Hz, found {sidechain_rate_hz} Hz")
    engine = dawdreamer.RenderEngine(rate_hz, args.block)
    plugin = engine.make_plugin_processor("graft", args.plugin)
    names = [parameter["name"] for parameter in plugin.get_parameters_description()]
    for name, value in [("Harmony", args.harmony), ("Rhythm", args.rhythm)]:
        plugin.set_parameter(names.index(name), value)

    latency_samples = plugin.get_latency_samples()
    samples = main.shape[1]

    def padded(audio):
        audio = audio[:, :samples]
        return np.pad(audio, ((0, 0), (0, samples + latency_samples - audio.shape[1])))

    engine.load_graph([
        (engine.make_playback_processor("main", padded(main)), []),
        (engine.make_playback_processor("sidechain", padded(sidechain)), []),
        (plugin, ["main", "sidechain"]),
    ])
    engine.render((samples + latency_samples) / rate_hz)
    output = engine.get_audio()[:, latency_samples:latency_samples + samples]
    soundfile.write(args.output, output.T, rate_hz, subtype="FLOAT")
    print(f"{args.output}: {output.shape[1]} samples, latency {latency_samples} samples taken off")
    return output


def difference_db(output, reference):
    samples = min(output.shape[1], reference.shape[1])
    error = output[:, :samples] - reference[:, :samples]
    return 10 * np.log10(np.sum(error**2) / np.sum(reference[:, :samples] ** 2) + 1e-30)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plugin")
    parser.add_argument("main")
    parser.add_argument("sidechain")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--harmony", type=float, default=0.0)
    parser.add_argument("--rhythm", type=float, default=1.0)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--compare")
    args = parser.parse_args()
    output = render(args)
    if args.compare:
        level = difference_db(output, read_stereo(args.compare)[0])
        print(f"difference from {args.compare}: {level:.1f} dB")
        sys.exit(int(level > -80.0))


if __name__ == "__main__":
    main()
