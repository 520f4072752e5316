"""Reference values for the tests of Luo et al.'s network and losses, from PyTorch: python3 luo.py > luo.json"""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn

torch.set_default_dtype(torch.float64)

BANDS, CEPSTRA, HIDDEN, LATENTS, PITCHES, NOTES = 12, 5, 7, 3, 6, 4
SHIFTS = [-2, 6, 0, -1]
TEMPERATURE = 0.7


def wave(shape, scale, phase):
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(0.7 * n + phase)).reshape(shape)


def linear(inputs, outputs, phase):
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        # Weights are stored (inputs, outputs) in the tested network.
        layer.weight.copy_(wave((inputs, outputs), 0.6, phase).T)
        layer.bias.copy_(wave((outputs,), 0.3, phase + 1))
    return layer


def norm(width, phase):
    layer = nn.BatchNorm1d(width)
    with torch.no_grad():
        layer.weight.copy_(1 + wave((width,), 0.2, phase))
        layer.bias.copy_(wave((width,), 0.2, phase + 1))
    return layer


def hidden(inputs, phase):
    layers = []
    for index in range(3):
        layers += [linear(inputs if index == 0 else HIDDEN, HIDDEN, phase + index), nn.Tanh(), norm(HIDDEN, phase + index)]
    return nn.Sequential(*layers)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.timbre, self.pitch = hidden(CEPSTRA, 10), hidden(BANDS, 20)
        self.decoder = hidden(LATENTS + PITCHES, 30)
        self.mean, self.log_variance = linear(HIDDEN, LATENTS, 40), linear(HIDDEN, LATENTS, 41)
        self.logits, self.output = linear(HIDDEN, PITCHES, 42), linear(HIDDEN, BANDS, 43)
        n, k = torch.arange(BANDS).double(), torch.arange(CEPSTRA).double()
        self.cosines = torch.cos(math.pi / BANDS * (n[:, None] + 0.5) * k) * math.sqrt(2 / BANDS)
        self.cosines[:, 0] /= math.sqrt(2)

    def encode(self, x):
        h = self.timbre(x @ self.cosines)
        return self.mean(h), self.log_variance(h), self.logits(self.pitch(x))

    def decode(self, z, c):
        return torch.tanh(self.output(self.decoder(torch.cat([z, c], 1))))


def kl_normal(mean, log_variance):
    distribution = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return torch.distributions.kl_divergence(distribution, standard).sum(1).mean()


def kl_uniform(logits):
    uniform = torch.distributions.Categorical(logits=torch.zeros_like(logits))
    return torch.distributions.kl_divergence(torch.distributions.Categorical(logits=logits), uniform).mean()


def contrast(a, b):
    x = torch.cat([a, b])
    similarity = F.cosine_similarity(x[:, None], x[None], dim=-1) / 0.5
    count = len(a)
    similarity = similarity.masked_fill(torch.eye(2 * count, dtype=torch.bool), -math.inf)
    partner = torch.arange(2 * count).roll(count)
    return F.cross_entropy(similarity, partner)


def pitch(logits, noise):
    soft = F.softmax((logits + noise) / TEMPERATURE, 1)
    hard = F.one_hot(soft.argmax(1), PITCHES).double()
    return hard - soft.detach() + soft


def squared_distance(a, b):
    return ((a - b) ** 2).sum(1).mean()


def tested_name(name):
    """Name of a parameter in the tested network: each hidden layer is three modules here."""
    part, *rest = name.split(".")
    if len(rest) == 1:
        return name
    layer, module = divmod(int(rest[0]), 3)
    return f"{part}.{layer}.{'norm.' if module == 2 else ''}{rest[1]}"


def main():
    out = {}
    a, b = wave((NOTES, LATENTS), 1.5, 1), wave((NOTES, LATENTS), 0.8, 2)
    logits, other = wave((NOTES, PITCHES), 2.0, 3), wave((NOTES, PITCHES), 1.0, 4)
    classes = torch.tensor([0, 5, 2, 2])
    out["blocks"] = {
        "squared_distance": squared_distance(a, b).item(),
        "kl_normal": kl_normal(a, b).item(),
        "kl_uniform": kl_uniform(logits).item(),
        "cross_entropy": F.cross_entropy(logits, classes).item(),
        "masked_cross_entropy": F.cross_entropy(logits[:3], classes[:3]).item(),
        "contrast": contrast(a, b).item(),
    }
    soft = logits.clone().requires_grad_()
    sample = pitch(soft, other)
    (sample * wave((NOTES, PITCHES), 1.0, 5)).sum().backward()
    out["gumbel"] = {"sample": sample.detach().flatten().tolist(), "gradient": soft.grad.flatten().tolist()}

    layer = norm(LATENTS, 1)
    x = wave((NOTES, LATENTS), 1.5, 1).requires_grad_()
    y = layer(x)
    (y * wave((NOTES, LATENTS), 1.0, 5)).sum().backward()
    out["norm"] = {
        "training": y.detach().flatten().tolist(),
        "gradient": x.grad.flatten().tolist(),
        "mean": layer.running_mean.tolist(),
        "variance": layer.running_var.tolist(),
        "inference": layer.eval()(x).detach().flatten().tolist(),
    }

    # One whole step of M6: the cycle has a step of its own, from gradients at the same weights.
    network = Network()
    first, second = wave((NOTES, BANDS), 0.9, 6), wave((NOTES, BANDS), 0.8, 7)
    mean1, log_variance1, logits1 = network.encode(first)
    mean2, log_variance2, logits2 = network.encode(second)
    z1 = mean1 + (log_variance1 / 2).exp() * wave((NOTES, LATENTS), 1.0, 8)
    c1 = pitch(logits1, wave((NOTES, PITCHES), 1.0, 9))
    decoded1 = network.decode(z1, c1)
    z2 = mean2 + (log_variance2 / 2).exp() * wave((NOTES, LATENTS), 1.0, 10)
    c2 = pitch(logits2, wave((NOTES, PITCHES), 1.0, 11))
    decoded2 = network.decode(z2, c2)
    shifted = logits1.argmax(1) + torch.tensor(SHIFTS)
    inside = (shifted >= 0) & (shifted < PITCHES)
    parts = {
        "squared_distance": squared_distance(first, decoded1) + squared_distance(second, decoded2),
        "kl_timbre": kl_normal(mean1, log_variance1) + kl_normal(mean2, log_variance2),
        "kl_pitch": kl_uniform(logits1) + kl_uniform(logits2),
        "timbre_distance": squared_distance(z1, z2),
        "contrast": contrast(mean1, mean2),
        "shift": F.cross_entropy(logits2[inside], shifted[inside]),
    }
    total = 10 * parts["squared_distance"] + sum(value for name, value in parts.items() if name != "squared_distance")

    def swap(z, c, noise, logits):
        mean, log_variance, found = network.encode(network.decode(z, c))
        again = mean + (log_variance / 2).exp() * noise
        return squared_distance(again, z) + F.cross_entropy(found, logits.argmax(1))

    cycle = swap(z2, c1, wave((NOTES, LATENTS), 1.0, 12), logits1) + swap(z1, c2, wave((NOTES, LATENTS), 1.0, 13), logits2)
    parts |= {"loss": total, "cycle": cycle}
    out["parts"] = {name: value.item() for name, value in parts.items()}
    out["inside"] = inside.tolist()
    names = [tested_name(name) for name, _ in network.named_parameters()]
    of = lambda loss: torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
    both = {"loss": of(total), "cycle": of(cycle)}
    out["gradients"] = {
        key: {name: g.abs().sum().item() for name, g in zip(names, grads) if g is not None} for key, grads in both.items()
    }
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, amsgrad=True)
    for grads in both.values():
        for p, g in zip(network.parameters(), grads):
            p.grad = torch.zeros_like(p) if g is None else g
        optimiser.step()
    out["weights"] = {name: p.abs().sum().item() for name, p in zip(names, network.parameters())}
    print(json.dumps(out, indent=1))


main()
