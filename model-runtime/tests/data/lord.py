"""Reference values for the networks of LORD (src/lord/tests.rs), in PyTorch. Prints them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

torch.set_default_dtype(torch.float64)

def wave(*shape, phase):
    n = math.prod(shape)
    return torch.sin(0.37 * torch.arange(n) ** 2 + phase).reshape(shape)


def digest(x):
    return (x * wave(*x.shape, phase=9.0)).sum().item()


def phase(name):
    return sum(name.encode()) % 64


def weights(module):
    for name, p in module.named_parameters():
        p.data = 0.3 * wave(*p.shape, phase=phase(name))


N_MELS, CONTENT, CLASS, WIDTH, KERNEL, UPS = 6, 3, 5, 4, 3, [2, 1, 2]


def pad(x, k):
    return F.pad(x, (k // 2, k // 2 - (k + 1) % 2), mode="reflect")


class Conv(nn.Conv1d):
    def forward(self, x):
        return super().forward(pad(x, self.kernel_size[0]))


class Linear(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(i, o))
        self.bias = nn.Parameter(torch.empty(1, o))
    def forward(self, x):
        return x @ self.weight + self.bias


norm = F.instance_norm


def leaky(x):
    return F.leaky_relu(x, 0.01)



class Block(nn.Module):
    def __init__(self, up):
        super().__init__()
        self.up = up
        self.convs = nn.ModuleList([Conv(WIDTH, WIDTH, KERNEL), Conv(WIDTH, WIDTH * up, KERNEL)])
        self.styles = nn.ModuleList([Linear(CLASS, 2 * WIDTH) for _ in range(2)])
    def styled(self, x, site, c):
        m, s = self.styles[site](c).chunk(2, 1)
        return F.relu(norm(x) * s[..., None] + m[..., None])
    def forward(self, x, c):
        y = self.styled(self.convs[0](x), 0, c)
        y = self.convs[1](y)
        b, n, t = y.shape
        y = y.view(b, n // self.up, self.up, t).permute(0, 1, 3, 2).reshape(b, n // self.up, t * self.up)
        return self.styled(y, 1, c) + F.interpolate(x, scale_factor=self.up, mode="nearest")


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Conv(CONTENT, WIDTH, 1)
        self.blocks = nn.ModuleList([Block(up) for up in UPS])
        self.last = Conv(WIDTH, N_MELS, 1)
    def forward(self, z, c):
        x = F.relu(norm(self.first(z)))
        for block in self.blocks:
            x = block(x, c)
        return self.last(x)


class EncoderBlock(nn.ModuleList):
    def __init__(self, width, kernel, stride, norm):
        super().__init__([Conv(width, width, kernel), Conv(width, width, kernel, stride=stride)])
        self.stride, self.norm = stride, norm
    def forward(self, x):
        y = x
        for conv in self:
            y = leaky(self.norm(conv(y)))
        return y + F.avg_pool1d(x, self.stride)


class Encoder(nn.Module):
    def __init__(self, bank, bank_channels, width, kernel, strides, norm):
        super().__init__()
        self.norm = norm
        self.bank = nn.ModuleList([Conv(N_MELS, bank_channels, k) for k in range(1, bank + 1)])
        self.mix = Conv(bank * bank_channels + N_MELS, width, 1)
        self.blocks = nn.ModuleList([EncoderBlock(width, kernel, s, norm) for s in strides])
    def hidden(self, x):
        x = torch.cat([leaky(c(x)) for c in self.bank] + [x], 1)
        x = leaky(self.norm(self.mix(x)))
        for block in self.blocks:
            x = block(x)
        return x


class Content(Encoder):
    def __init__(self):
        super().__init__(4, 2, 5, 3, [2, 2, 1], norm)
        self.last = Conv(5, CONTENT, 1)
    def forward(self, x):
        return self.last(self.hidden(x))


class Class(Encoder):
    def __init__(self):
        super().__init__(3, 2, 4, 3, [1, 2], lambda x: x)
        self.dense = nn.ModuleList([nn.ModuleList([Linear(4, 4), Linear(4, 4)]) for _ in range(2)])
        self.last = Linear(4, CLASS)
    def forward(self, x):
        x = self.hidden(x).mean(2)
        for a, b in self.dense:
            x = leaky(b(leaky(a(x)))) + x
        return self.last(x)


RANK, FRAMES = 2, 4


class Confined(Content):
    """With a projection that is not trained."""
    def forward(self, x):
        mean = 0.3 * wave(1, CONTENT * FRAMES, phase=phase("subspace.mean"))
        basis = 0.3 * wave(RANK, CONTENT * FRAMES, phase=phase("subspace.basis"))
        y = super().forward(x)
        return ((y.flatten(1) - mean) @ basis.T @ basis + mean).reshape(y.shape)


networks = {"generator": Generator(), "content": Content(), "confined": Confined(), "class": Class()}
z = wave(2, CONTENT, 4, phase=1.0).requires_grad_()
c = wave(2, CLASS, phase=2.0).requires_grad_()
x = wave(2, N_MELS, 16, phase=3.0).requires_grad_()
for name, network in networks.items():
    weights(network)
    inputs = [z, c] if name == "generator" else [x]
    y = network(*inputs)
    gradients = torch.autograd.grad((y * y).sum(), inputs + list(network.parameters()))
    own = [digest(g) for g in gradients[: len(inputs)]]
    print(name, digest(y), own, sum(digest(g) for g in gradients[len(inputs) :]))
