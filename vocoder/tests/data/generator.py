# Writes generator.json: samples of HiFi-GAN generators in PyTorch, with weights from a formula.
# python generator.py > generator.json
import json

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

FRAMES, EVERY = 18, 61


def noise(shape, seed):
    """The same numbers in -1..1 as `noise` in tests/common/mod.rs."""
    h = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(2246822519)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(3266489917)
    h ^= h >> np.uint32(16)
    return torch.from_numpy(h.astype(np.float64) / 2.0**31 - 1.0).reshape(tuple(shape))


def seed(name):
    value = 7
    for byte in name.encode():
        value = (value * 31 + byte) % 65521
    return value


def conv(i, o, k, d=1):
    return weight_norm(nn.Conv1d(i, o, k, dilation=d, padding=(k - 1) * d // 2))


class ResBlock(nn.Module):
    def __init__(self, channels, kernel, dilations, kind):
        super().__init__()
        first = nn.ModuleList(conv(channels, channels, kernel, d) for d in dilations)
        if kind == "1":
            self.convs1 = first
            self.convs2 = nn.ModuleList(conv(channels, channels, kernel) for _ in dilations)
            self.chains = list(zip(self.convs1, self.convs2))
        else:
            self.convs = first
            self.chains = [(c,) for c in first]

    def forward(self, x):
        for chain in self.chains:
            y = x
            for c in chain:
                y = c(F.leaky_relu(y, 0.1))
            x = x + y
        return x


class Generator(nn.Module):
    def __init__(self, channels, kind, kernels, dilations, rates=(8, 8, 4, 2), up_kernels=(16, 16, 8, 4)):
        super().__init__()
        self.conv_pre = conv(128, channels, 7)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for r, k in zip(rates, up_kernels):
            up = nn.ConvTranspose1d(channels, channels // 2, k, r, padding=(k - r) // 2)
            self.ups.append(weight_norm(up))
            channels //= 2
            self.resblocks.extend(ResBlock(channels, k, d, kind) for k, d in zip(kernels, dilations))
        self.conv_post = conv(channels, 1, 7)
        self.n = len(kernels)

    def forward(self, x):
        x = self.conv_pre(x)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            x = sum(b(x) for b in self.resblocks[i * self.n : (i + 1) * self.n]) / self.n
        return torch.tanh(self.conv_post(F.leaky_relu(x, 0.01)))


out = {}
for name, config in {
    "v1": (512, "1", (3, 7, 11), ((1, 3, 5),) * 3),
    "v2": (128, "1", (3, 7, 11), ((1, 3, 5),) * 3),
    "v3": (256, "2", (3, 5, 7), ((1, 2), (2, 6), (3, 12))),
}.items():
    g = Generator(*config).double()
    for key, p in g.named_parameters():
        key = key.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v")
        value = noise(p.shape, seed(key))
        if key.endswith("weight_g"):
            value = (1.5 if key.startswith("ups") else 0.5) * (1 + 0.3 * value)
        p.data = 0.1 * value if key.endswith("bias") else value
    with torch.no_grad():
        y = g(5 * noise((1, 128, FRAMES), 1) - 4)
    out[name] = dict(
        samples=y.shape[-1],
        rms=round(y.square().mean().sqrt().item(), 6),
        every_61st=[round(v, 7) for v in y.flatten()[::EVERY].tolist()],
    )
print(json.dumps(out, separators=(",", ":")))
