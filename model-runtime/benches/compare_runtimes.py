"""Times the networks in ONNX Runtime, PyTorch and this project, one thread each, in one run:

    pip install torch onnx onnxruntime onnxscript safetensors
    python model-runtime/benches/compare_runtimes.py [--rounds 5] [--only NAME] [--isa avx2] [--json FILE] [--against FILE]

The built-in network has the weights of assets/graft.safetensors, the others random ones. The three runtimes take turns,
so that other work on the machine meets all of them alike. Prints medians in ms, and how many times this project is as
fast as each of the others. --isa forces the vector instructions of this project alone.

--json keeps the times of all rounds. --against compares them with those of an older file: how many times this project is
as fast as then, in both cases relative to ONNX Runtime in the same round, as the machine may have been busier. A change
counts if it exceeds three standard deviations of a round, which are estimated from the median absolute deviations.

In steps of 4 frames, the other runtimes get 4 frames without the past frames that a stream keeps; the steps of this
project are those of a stream.
"""
import argparse
import io
import json
import math
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
MELS, NOTES = 128, 88


def conv(i, o, kernel, stride=(1, 1), pad=None, mode="replicate"):
    pad = (kernel[0] // 2, kernel[1] // 2) if pad is None else pad
    return nn.Conv2d(i, o, kernel, stride, pad, padding_mode=mode if any(pad) else "zeros")


def act(layer):
    return nn.Sequential(layer, nn.LeakyReLU(0.2))


class Residual(nn.Module):
    def __init__(self, channels, mode="replicate"):
        super().__init__()
        self.layers = nn.Sequential(*(act(conv(channels, channels, (3, 3), mode=mode)) for _ in range(2)))

    def forward(self, x):
        return x + self.layers(x)


class BuiltInEncoder(nn.Module):
    def __init__(self, c=36, latents=2, rc=12, rl=12, pool=4):
        super().__init__()
        self.pool = pool
        self.rows = nn.Conv2d(MELS, 2 * NOTES, 1, bias=False)
        self.harmony = nn.Sequential(
            act(conv(1, c, (5, 3), (2, 1))), Residual(c), act(conv(c, c, (13, 1))), Residual(c), conv(c, 2 * latents, (1, 1))
        )
        stages, n = [act(conv(1, rc, (3, 3)))], rc
        for _ in range(3):
            stages += [act(conv(n, 2 * n, (3, 3))), conv(2 * n, 2 * n, (4, 3), (4, 1), (0, 1)), Residual(2 * n)]
            n *= 2
        self.stages = nn.Sequential(*stages)
        self.rhythm = nn.Sequential(act(conv(2 * n, n, (1, 3))), conv(n, 2 * rl, (1, 1)))

    def forward(self, mel):
        x = (mel + 4.5) / 2.2
        h = F.avg_pool2d(x, (1, self.pool))
        h = h - h.mean(2, keepdim=True)
        h = self.rows(h.transpose(1, 2)).transpose(1, 2)
        r = self.stages(x)
        return self.harmony(h), self.rhythm(r.reshape(r.shape[0], -1, 1, r.shape[-1]))


class BuiltInDecoder(nn.Module):
    def __init__(self, c=36, latents=2, rl=12, width=96, planes=12, pool=4):
        super().__init__()
        self.harmony = nn.Sequential(act(conv(latents, c, (3, 3))), Residual(c), act(conv(c, c, (13, 1))))
        self.to_mel = nn.Parameter(torch.rand(MELS, NOTES))
        self.rhythm = nn.Sequential(
            act(conv(rl, width, (1, 3))), act(conv(width, width, (1, 3))), conv(width, planes * MELS, (1, 1))
        )
        self.mel = nn.Sequential(act(conv(c + planes, c, (3, 3))), Residual(c), Residual(c), conv(c, 1, (1, 1)))
        self.pool, self.planes = pool, planes

    def forward(self, harmony, rhythm):
        h = torch.matmul(self.to_mel, self.harmony(harmony))
        b, c, m, p = h.shape
        h = F.interpolate(h.reshape(b, c * m, p), scale_factor=self.pool, mode="linear").reshape(b, c, m, p * self.pool)
        r = self.rhythm(rhythm)
        return self.mel(torch.cat([h, r.reshape(b, self.planes, m, -1)], 1)) * 2.2 - 4.5


class HardEncoder(nn.Module):
    def __init__(self, n=32, latents=64):
        super().__init__()
        same = lambda *a, **k: conv(*a, mode="reflect", **k)
        layers = [act(same(1, n, (3, 3)))]
        for _ in range(3):
            layers += [act(same(n, 2 * n, (3, 3))), same(2 * n, 2 * n, (4, 3), stride=(4, 1), pad=(0, 1)), Residual(2 * n, "reflect")]
            n *= 2
        width = 2 * latents
        self.trunk = nn.Sequential(*layers, same(n, width, (1, 1)))
        branch = lambda: nn.Sequential(Residual(width, "reflect"), Residual(width, "reflect"), same(width, width, (1, 1)))
        self.harmony, self.rhythm = branch(), branch()

    def forward(self, mel):
        x = self.trunk(mel)
        return self.harmony(x), self.rhythm(x)


class HardDecoder(nn.Module):
    def __init__(self, n=256, latents=64):
        super().__init__()
        layers = [act(conv(2 * latents, n, (3, 3), mode="zeros"))]
        for _ in range(3):
            up = nn.ConvTranspose2d(n // 2, n // 2, (4, 3), (4, 1), (0, 1))
            layers += [Residual(n, "reflect"), act(conv(n, n // 2, (3, 3), mode="reflect")), up]
            n //= 2
        self.layers = nn.Sequential(*layers, conv(n, 1, (1, 1)))

    def forward(self, harmony, rhythm):
        return self.layers(torch.cat([harmony, rhythm], 1))


class Voice(nn.Module):
    """A generator; with a template, that of the built-in voice, which adds the template to each stage and weights its
    bands at the end. Its padding is not causal, which takes the same time."""

    def __init__(self, generator, template):
        super().__init__()
        self.g, self.template = generator, template
        if template:
            blocks = [64, 8, 2, 1]
            self.inputs = nn.ModuleList(nn.Conv1d(b, c, 7, padding=3) for b, c in zip(blocks, [64, 32, 16, 8]))
            self.bands = nn.Conv1d(1, 16, 63, padding=31, bias=False)
            self.g.conv_post = nn.Conv1d(8, 16, 7, padding=3)

    def forward(self, mel, samples=None):
        if not self.template:
            return self.g(mel)
        x = self.g.conv_pre(mel)
        for i, up in enumerate(self.g.ups):
            x = up(F.leaky_relu(x, 0.1))
            block = self.inputs[i].in_channels
            x = x + self.inputs[i](samples.reshape(samples.shape[0], -1, block).transpose(1, 2))
            x = sum(b(x) for b in self.g.resblocks[i * self.g.n : (i + 1) * self.g.n]) / self.g.n
        weights = self.g.conv_post(F.leaky_relu(x, 0.01))
        return (self.bands(samples) * (1 + weights)).sum(1, keepdim=True).clamp(-1, 1)


def load_built_in(encoder, decoder):
    """Copies the weights of the model file, by their order in each part."""
    file = {name: tensor.float() for name, tensor in load_file(ROOT / "assets/graft.safetensors").items()}

    def fill(layers, names):
        convs = [m for m in layers.modules() if isinstance(m, nn.Conv2d)]
        assert len(convs) == len(names), (len(convs), names)
        for layer, name in zip(convs, names):
            layer.weight.data, layer.bias.data = file[name + ".weight"], file[name + ".bias"]

    n = "network."
    fill(encoder.harmony, [n + "harmony_encoder." + x for x in ["0", "1.0", "1.1", "2", "3.0", "3.1", "4"]])
    stages = [f"stage{s}.{x}" for s in range(3) for x in ["0", "1", "2.0", "2.1"]]
    fill(encoder.stages, [n + "rhythm_encoder." + x for x in ["0", *stages]])
    fill(encoder.rhythm, [n + "rhythm_encoder.1", n + "rhythm_encoder.2"])
    fill(decoder.harmony, [n + "harmony_decoder." + x for x in ["0", "1.0", "1.1", "2"]])
    fill(decoder.rhythm, [n + "rhythm_decoder." + x for x in "012"])
    fill(decoder.mel, [n + "mel_decoder." + x for x in ["0", "1.0", "1.1", "2.0", "2.1", "3"]])


def hifi_gan(name):
    """The generator of the tests, without its main program."""
    source = (ROOT / "vocoder/tests/data/generator.py").read_text().split("\nout = {}")[0]
    scope = {}
    exec(compile(source, "generator.py", "exec"), scope)
    channels = {"V1": 512, "V2": 128, "music": 128}[name]
    generator = scope["Generator"](channels, "1", (3, 7, 11), ((1, 3, 5),) * 3)
    for layer in generator.modules():
        if hasattr(layer, "parametrizations"):
            nn.utils.parametrize.remove_parametrizations(layer, "weight")
    return Voice(generator, name == "music")


def session(module, inputs):
    file = io.BytesIO()
    names = [f"x{i}" for i in range(len(inputs))]
    torch.onnx.export(module, tuple(inputs), file, input_names=names, opset_version=17, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    run = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {name: x.numpy() for name, x in zip(names, inputs)}
    return lambda: run.run(None, feed)


def workloads(frames=44):
    """The name of a benchmark and its program, and what the others run: (module, inputs, repetitions)."""
    mel = lambda b, t: torch.rand(b, 1, MELS, t) * 4 - 6
    encoder, decoder = BuiltInEncoder(), BuiltInDecoder()
    load_built_in(encoder, decoder)
    hard = HardEncoder(), HardDecoder()
    latents = lambda b, t: [torch.rand(b, 2, NOTES, t // 4), torch.rand(b, 12, 1, t)]
    hard_latents = lambda b, t: [torch.rand(b, 64, 2, t), torch.rand(b, 64, 2, t)]
    steps = frames // 4
    for name, (e, d), l in [("pitch-aligned", (encoder, decoder), latents), ("hard", hard, hard_latents)]:
        yield f"{name}/encode two clips of 1 s", "remix", [(e, [mel(2, frames)], 1)]
        yield f"{name}/decode 1 s", "remix", [(d, l(1, frames), 1)]
        yield f"{name}/encode two and decode, 1 s in steps of 4 frames", "remix", [(e, [mel(2, 4)], steps), (d, l(1, 4), steps)]
    for name in ["V1", "V2", "music"]:
        inputs = [torch.rand(1, MELS, 64)] + ([torch.rand(1, 1, 64 * 512)] if name == "music" else [])
        yield f"{name}, mono/whole clip", "generator", [(hifi_gan(name), inputs, 1)]


def benchmarks():
    """The programs of the project's benchmarks."""
    command = ["cargo", "bench", "--workspace", "--bench", "remix", "--bench", "generator", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines if '"executable":"' in line]
    return {artifact["target"]["name"]: artifact["executable"] for artifact in found}


def ours(program, name, isa):
    """The median of a benchmark, in ms."""
    pattern = "^" + re.escape(name) + "$"
    command = [program, "--bench", "--noplot", "--discard-baseline", "--warm-up-time", "0.2", "--measurement-time", "0.5", pattern]
    environment = os.environ | ({"ISA": isa} if isa else {})
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir(), env=environment).stdout
    value, unit = re.search(r"time:\s+\[\S+ \S+ (\S+) (\S+)", output).groups()
    return float(value) * {"ns": 1e-6, "µs": 1e-3, "ms": 1, "s": 1e3}[unit]


def timed(work):
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def relative(times):
    """The median of how many times this project is as fast as ONNX Runtime, and the standard deviation of a round."""
    ratios = [other / own for own, other in zip(times["graft"], times["onnxruntime"])]
    median = statistics.median(ratios)
    return median, 1.4826 * statistics.median(abs(ratio - median) for ratio in ratios)


def verdict(times, before):
    """The change since then, in words."""
    (now, spread), (then, old_spread) = relative(times), relative(before)
    noise = 3 * math.hypot(spread / now, old_spread / then)
    change = now / then
    word = "within noise" if abs(math.log(change)) <= noise else "faster" if change > 1 else "slower"
    return f"{change:.2f} times as fast as before: {word} (noise {100 * noise:.0f} %)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the names to time")
    parser.add_argument("--isa", help="vector instructions of this project, such as avx2")
    parser.add_argument("--json", type=Path, help="file to write the times to")
    parser.add_argument("--against", type=Path, help="older file of --json to compare with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(options.against.read_text()) if options.against else {}
    programs, report = benchmarks(), {}
    print(f"{'ms, medians':62} {'Graft':>8} {'ORT':>8} {'PyTorch':>8}  ORT/Graft PyTorch/Graft")
    with torch.no_grad():
        for name, program, parts in workloads():
            if options.only not in name:
                continue
            runtimes = {"onnxruntime": [], "pytorch": []}
            for module, inputs, count in parts:
                module.eval()
                run = session(module, inputs)
                runtimes["onnxruntime"].append((run, count))
                runtimes["pytorch"].append((lambda module=module, inputs=inputs: module(*inputs), count))
            times = {"graft": [], "onnxruntime": [], "pytorch": []}
            for _ in range(options.rounds):
                times["graft"].append(ours(programs[program], name, options.isa))
                for runtime, works in runtimes.items():
                    for work, _ in works:
                        work()
                    rounds = [sum(count * timed(work) for work, count in works) for _ in range(10)]
                    times[runtime].append(statistics.median(rounds))
            medians = {runtime: statistics.median(values) for runtime, values in times.items()}
            report[name] = times
            g, o, p = medians["graft"], medians["onnxruntime"], medians["pytorch"]
            print(f"{name:62} {g:8.2f} {o:8.2f} {p:8.2f} {o / g:10.2f} {p / g:13.2f}", flush=True)
            if name in before:
                print(f"    {verdict(times, before[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
