"""Reference values of the networks from PyTorch: python networks.py > networks.json

Weights and input follow a formula, so that only a few outputs need to be stored.
"""
import json

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
MELS, FRAMES, NOTES = 128, 21, 88


def values(name, shape, scale):
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.sin(0.7 * n + len(name))).reshape(shape)


class Weights:
    def __init__(self, path=""):
        self.path = path

    def __truediv__(self, name):
        return Weights(f"{self.path}.{name}" if self.path else name)

    def tensors(self, shape, fan_in, out):
        scale = 1.5 / fan_in**0.5
        return values(self.path + ".weight", shape, scale), values(self.path + ".bias", [out], scale)


def leaky(x, on=True):
    return F.leaky_relu(x, 0.2) if on else x


def conv(w, x, out, kernel, stride=(1, 1), pad=None, mode="replicate", act=True, causal=False):
    weight, bias = w.tensors([out, x.shape[1], *kernel], x.shape[1] * kernel[0] * kernel[1], out)
    pad = (kernel[0] // 2, kernel[1] // 2) if pad is None else pad
    before, after = (2 * pad[1], 0) if causal else (pad[1], pad[1])
    x = F.pad(x, (before, after, pad[0], pad[0]), mode=mode) if any(pad) else x
    return leaky(F.conv2d(x, weight, bias, stride), act)


def residual(w, x, mode="replicate", causal=False):
    y = conv(w / "0", x, x.shape[1], (3, 3), mode=mode, causal=causal)
    return x + conv(w / "1", y, x.shape[1], (3, 3), mode=mode, causal=causal)


def latent(raw):
    mean, spread = raw.chunk(2, 1)
    return mean, F.softplus(spread) + 1e-3


def hz_to_mel(hz):
    return hz * 3 / 200 if hz < 1000 else 15 + torch.log(torch.tensor(hz / 1000)).item() * 27 / torch.log(torch.tensor(6.4)).item()


def mel_to_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


STEP = hz_to_mel(11025.0) / (MELS + 1)


def interpolation(positions, columns):
    matrix = torch.zeros(len(positions), columns)
    for row, position in enumerate(positions):
        position = min(max(position, 0), columns - 1)
        below = min(int(position), columns - 2)
        matrix[row, below], matrix[row, below + 1] = 1 - (position - below), position - below
    return matrix


def mel_encoder(w, x, n, causal=False):
    r = conv(w / 0, x, n, (3, 3), causal=causal)
    for stage in range(3):
        v, n = w / f"stage{stage}", 2 * n
        r = conv(v / 0, r, n, (3, 3), causal=causal)
        r = conv(v / 1, r, n, (4, 3), stride=(4, 1), pad=(0, 1), act=False, causal=causal)
        r = residual(v / 2, r, causal=causal)
    r = r.reshape(r.shape[0], -1, 1, r.shape[-1])
    return conv(w / 1, r, n, (1, 3), causal=causal)


ROWS = [(hz_to_mel(440 * 2 ** ((36 - 0.25 + k / 2 - 69) / 12)) - STEP) / STEP for k in range(2 * NOTES)]
BANDS = [69 + 12 * torch.log2(torch.tensor(mel_to_hz(STEP * (k + 1)) / 440)).item() - 36 for k in range(MELS)]


def pitch_aligned(mel, w, c=6, hl=2, pool=4, rc=4, rl=3, planes=2, width=5, mean=-4.5, deviation=2.2):
    x = (mel - mean) / deviation
    h = F.pad(x, (0, -x.shape[-1] % pool, 0, 0), mode="replicate")
    h = h.reshape(*h.shape[:3], -1, pool).mean(-1)
    h = h - h.mean(2, keepdim=True)
    h = torch.einsum("rm,bcmt->bcrt", interpolation(ROWS, MELS), h)
    e = w / "harmony_encoder"
    h = conv(e / 0, h, c, (5, 3), stride=(2, 1))
    h = residual(e / 1, h)
    h = conv(e / 2, h, c, (13, 1))
    h = residual(e / 3, h)
    harmony, harmony_spread = latent(conv(e / 4, h, 2 * hl, (1, 1), act=False))

    e = w / "rhythm_encoder"
    r = mel_encoder(e, x, rc)
    n = r.shape[1]
    rhythm, rhythm_spread = latent(conv(e / 2, r, 2 * rl, (1, 1), act=False))

    d = w / "harmony_decoder"
    h = conv(d / 0, harmony, c, (3, 3))
    h = residual(d / 1, h)
    h = conv(d / 2, h, c, (13, 1))
    h = torch.einsum("mn,bcnt->bcmt", interpolation(BANDS, NOTES), h)
    b, _, _, p = h.shape
    h = F.interpolate(h.reshape(b, -1, p), scale_factor=pool, mode="linear").reshape(b, c, MELS, -1)
    h = h[..., : x.shape[-1]]
    d = w / "rhythm_decoder"
    r = conv(d / 0, rhythm, n, (1, 3))
    r = conv(d / 1, r, n, (1, 3))
    r = conv(d / 2, r, planes * MELS, (1, 1), act=False).reshape(b, planes, MELS, -1)
    d = w / "mel_decoder"
    y = conv(d / 0, torch.cat([h, r], 1), width, (3, 3))
    y = residual(d / 2, residual(d / 1, y))
    y = conv(d / 3, y, 1, (1, 1), act=False) * deviation + mean
    return dict(harmony=(harmony, harmony_spread), rhythm=(rhythm, rhythm_spread)), y


def hard(mel, w, c=4, latents=12):
    def same(w, x, out, kernel, **more):
        return conv(w, x, out, kernel, mode="reflect", **more)

    e = w / "trunk"
    x, n = same(e / "first", mel, c, (3, 3)), c
    for stage in range(3):
        v, n = e / f"stage{stage}", 2 * n
        x = same(v / "widen", x, n, (3, 3))
        x = same(v / "down", x, n, (4, 3), stride=(4, 1), pad=(0, 1), act=False)
        x = residual(v / "residual", x, "reflect")
    x = same(e / "last", x, 2 * latents, (1, 1), act=False)

    def branch(v):
        y = residual(v / 1, residual(v / 0, x, "reflect"), "reflect")
        return latent(same(v / 2, y, 2 * latents, (1, 1), act=False))

    (harmony, harmony_spread), (rhythm, rhythm_spread) = branch(w / "harmony"), branch(w / "rhythm")
    d = w / "decoder"
    # The public code's first layer, ConvTranspose2d(2 latents, n, 3, 1, 1), and the formula's weight of a convolution.
    y = torch.cat([harmony, rhythm], 1)
    weight, bias = (d / "first").tensors([n, y.shape[1], 3, 3], y.shape[1] * 9, n)
    y = leaky(F.conv_transpose2d(y, weight.transpose(0, 1).flip(2, 3), bias, padding=1))
    for stage in range(3):
        v = d / f"stage{stage}"
        y = residual(v / "residual", y, "reflect")
        n //= 2
        y = same(v / "narrow", y, n, (3, 3))
        weight, bias = (v / "up").tensors([n, n, 4, 3], n * 12, n)
        y = F.conv_transpose2d(y, weight, bias, stride=(4, 1), padding=(0, 1))
    y = same(d / "last", y, 1, (1, 1), act=False)
    return dict(harmony=(harmony, harmony_spread), rhythm=(rhythm, rhythm_spread)), y


def timbre(mel, w, c=6, pl=2, tc=2, tl=5, frames=8, vc=2, vl=3, width=7, planes=2, dc=5, mean=-4.5, deviation=2.2):
    x = (mel - mean) / deviation
    e = w / "timbre_encoder"
    hidden = mel_encoder(e, x, tc, causal=True)
    # Without anything before the first frame.
    weight = F.pad(mel.exp().mean(2, keepdim=True), (frames - 1, 0))
    sums = (F.pad(hidden, (frames - 1, 0)) * weight).unfold(3, frames, 1).sum(-1)
    hidden = sums / weight.unfold(3, frames, 1).sum(-1)
    hidden = conv(e / 2, hidden, hidden.shape[1], (1, 1))
    timbre = latent(conv(e / 3, hidden, 2 * tl, (1, 1), act=False))

    distance = torch.arange(MELS, dtype=torch.float64)
    smooth = torch.exp(-0.5 * ((distance[:, None] - distance) / 8) ** 2)
    smooth = smooth / smooth.sum(1, keepdim=True)
    fine = x - torch.einsum("mn,bcnt->bcmt", smooth, x)
    h = torch.einsum("rm,bcmt->bcrt", interpolation(ROWS, MELS), fine)
    e = w / "pitch_encoder"
    h = conv(e / 0, h, c, (5, 3), stride=(2, 1))
    h = residual(e / 1, h, causal=True)
    h = conv(e / 2, h, c, (13, 1))
    h = residual(e / 3, h, causal=True)
    pitch = latent(conv(e / 4, h, 2 * pl, (1, 1), act=False))

    e = w / "variation_encoder"
    variation = latent(conv(e / 2, mel_encoder(e, x, vc, causal=True), 2 * vl, (1, 1), act=False))

    d = w / "pitch_decoder"
    h = conv(d / 0, pitch[0], c, (3, 3), causal=True)
    h = residual(d / 1, h, causal=True)
    h = conv(d / 2, h, c, (13, 1))
    h = torch.einsum("mn,bcnt->bcmt", interpolation(BANDS, NOTES), h)
    d = w / "condition_decoder"
    r = conv(d / 0, torch.cat([timbre[0], variation[0]], 1), width, (1, 3), causal=True)
    r = conv(d / 1, r, width, (1, 3), causal=True)
    r = conv(d / 2, r, planes * MELS, (1, 1), act=False).reshape(mel.shape[0], planes, MELS, -1)
    d = w / "mel_decoder"
    y = conv(d / 0, torch.cat([h, r], 1), dc, (3, 3))
    y = residual(d / 2, residual(d / 1, y, causal=True), causal=True)
    y = conv(d / 3, y, 1, (1, 1), act=False) * deviation + mean
    return dict(timbre=timbre, pitch=pitch, variation=variation), y


mel = values("input", [2, 1, MELS, FRAMES], 2.0) - 4
report = {}
for network in (pitch_aligned, hard, timbre):
    latents, decoded = network(mel, Weights())
    outputs = {}
    for factor, (mean, spread) in latents.items():
        outputs |= {factor: mean, f"{factor}_spread": spread}
    outputs["mel"] = decoded
    report[network.__name__] = {
        name: {"shape": list(y.shape), "values": [round(v, 7) for v in y.flatten()[:: y.numel() // 40][:40].tolist()]}
        for name, y in outputs.items()
    }
print(json.dumps(report))
