"""Reference numbers of the network and the loss in src/tanaka/tests.rs, by PyTorch."""

import math

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
FRAMES, NOTES, CUT, BINS, HIDDEN, LATENTS = 5, 2, 4, 9, 3, 2
LOG_MEAN, LOG_DEVIATION, BETA, VARIANCE = -1.5, 2.0, 0.3, 0.5


def wave(shape, phase):
    i = torch.arange(math.prod(shape)).double()
    return torch.sin(0.37 * i * i + phase).reshape(shape)


def digest(t):
    return (t * wave(t.shape, 9.0)).sum().item()


def shapes(conditional):
    def layers(name, first, beside):
        for layer, width in [("first", first), ("second", 2 * HIDDEN), ("third", 2 * HIDDEN + beside)]:
            for direction in ["forwards", "backwards"]:
                for kind, rows in [("input", width), ("hidden", HIDDEN)]:
                    yield f"{name}.{layer}.{direction}.{kind}_weight", (rows, 3 * HIDDEN)
                    yield f"{name}.{layer}.{direction}.{kind}_bias", (3 * HIDDEN,)

    found = dict(layers("decoder", 3 * LATENTS, 0))
    for name, first, beside in [("timbre", CUT, 0), ("variation", CUT, LATENTS),
                                ("pitch", BINS, 2 * LATENTS if conditional else 0)]:
        found |= dict(layers(name, first, beside))
        found[f"{name}.head.weight"] = (2 * HIDDEN, 2 * LATENTS)
        found[f"{name}.head.bias"] = (2 * LATENTS,)
    return found | {"output.weight": (2 * HIDDEN, BINS), "output.bias": (BINS,)}


def run(conditional):
    weights = {}
    for index, (name, shape) in enumerate(sorted(shapes(conditional).items())):
        weights[name] = (0.5 * wave(shape, index)).requires_grad_()

    def gru(name, x):
        outputs = []
        for direction in ["forwards", "backwards"]:
            w = lambda part: weights[f"{name}.{direction}.{part}"]
            h, states = torch.zeros(NOTES, HIDDEN), []
            for frame in x if direction == "forwards" else x.flip(0):
                gates = frame @ w("input_weight") + w("input_bias")
                recurrent = h @ w("hidden_weight") + w("hidden_bias")
                (xr, xz, xn), (hr, hz, hn) = gates.chunk(3, 1), recurrent.chunk(3, 1)
                z = torch.sigmoid(xz + hz)
                h = (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + z * h
                states.append(h)
            states = torch.stack(states)
            outputs.append(states if direction == "forwards" else states.flip(0))
        return torch.cat(outputs, 2)

    def layers(name, x, beside=()):
        x = gru(f"{name}.second", gru(f"{name}.first", x))
        return gru(f"{name}.third", torch.cat([x, *beside], 2))

    def posterior(name, x):
        mean, spread = (x @ weights[f"{name}.head.weight"] + weights[f"{name}.head.bias"]).chunk(2, -1)
        return mean, F.softplus(spread) + 1e-4

    mask = torch.ones(FRAMES, NOTES, 1)
    mask[3:, 1] = 0
    cepstra, fine, target = (wave((FRAMES, NOTES, n), p) for n, p in [(CUT, 0.1), (BINS, 0.2), (BINS, 0.3)])
    envelope = torch.cat([(cepstra[..., :1] - LOG_MEAN) / LOG_DEVIATION, 2 * cepstra[..., 1:] / LOG_DEVIATION], 2)
    value = lambda posterior: posterior[0] + 0.5 * posterior[1]
    timbre = posterior("timbre", (layers("timbre", envelope) * mask).sum(0) / mask.sum(0))
    z_t = value(timbre).expand(FRAMES, -1, -1)
    variation = posterior("variation", layers("variation", envelope, [z_t]))
    z_v = value(variation)
    pitch = posterior("pitch", layers("pitch", fine, [z_t, z_v] if conditional else []))
    x = layers("decoder", torch.cat([z_t, z_v, value(pitch)], 2))
    decoded = LOG_MEAN + LOG_DEVIATION * (x @ weights["output.weight"] + weights["output.bias"])
    normal = torch.distributions.Normal
    kl = lambda p: torch.distributions.kl_divergence(normal(*p), normal(torch.zeros(1), torch.ones(1)))
    squares = ((decoded - target) ** 2 * mask).sum()
    kls = [kl(timbre).sum() / NOTES, (kl(variation) * mask).sum() / NOTES, (kl(pitch) * mask).sum() / NOTES]
    loss = squares / NOTES / (2 * VARIANCE) + BETA * sum(kls)
    loss.backward()
    gradient = sum(digest(w.grad) for w in weights.values())
    print([digest(decoded), *(k.item() for k in kls), loss.item(), gradient])


run(False)
run(True)
