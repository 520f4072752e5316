# Writes conv.json: PyTorch convolutions in double precision, with operands from a formula.
# python conv.py > conv.json
import json

import numpy as np
import torch
import torch.nn.functional as F


def noise(shape, seed):
    """The same numbers in -1..1 as `noise` in tests/common/mod.rs."""
    h = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(2246822519)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(3266489917)
    h ^= h >> np.uint32(16)
    return torch.from_numpy(h.astype(np.float64) / 2.0**31 - 1.0).reshape(shape)


def case(name, x, w, stride=(1, 1), dilation=(1, 1), padding=(0, 0), mode="zero", slopes=(None, None), transposed=False):
    inp, weight = noise(x, 1), noise(w, 2)
    bias = noise((w[1] if transposed else w[0],), 3)
    y = inp if slopes[0] is None else F.leaky_relu(inp, slopes[0])
    if transposed:
        y = F.conv_transpose2d(y, weight, bias, stride, padding)
    else:
        (ph, pw), torch_mode = padding, {"zero": "constant"}.get(mode, mode)
        y = F.pad(y, (pw, pw, ph, ph), mode=torch_mode)
        y = F.conv2d(y, weight, bias, stride, 0, dilation)
    y = y if slopes[1] is None else F.leaky_relu(y, slopes[1])
    return dict(
        name=name, input=x, weight=w, stride=stride, dilation=dilation, padding=padding, pad_mode=mode,
        input_slope=slopes[0], output_slope=slopes[1], transposed=transposed,
        output_shape=list(y.shape), output=[round(v, 7) for v in y.flatten().tolist()],
    )


cases = [
    case("3x3 zero", (1, 2, 5, 4), (3, 2, 3, 3), padding=(1, 1)),
    case("3x3 replicate, both slopes", (3, 2, 3, 5), (2, 2, 3, 3), padding=(1, 1), mode="replicate", slopes=(0.3, 0.2)),
    case("3x3 reflect", (3, 1, 4, 3), (2, 1, 3, 3), padding=(1, 1), mode="reflect", slopes=(None, 0.2)),
    case("1x1", (3, 3, 2, 5), (2, 3, 1, 1)),
    case("(13,1) replicated", (2, 2, 5, 3), (2, 2, 13, 1), padding=(6, 0), mode="replicate", slopes=(None, 0.2)),
    case("1-D, batch 3", (3, 3, 1, 7), (2, 3, 1, 5), padding=(0, 2), slopes=(0.1, None)),
    case("1-D dilated", (1, 2, 1, 11), (3, 2, 1, 3), dilation=(1, 3), padding=(0, 3), slopes=(0.1, 0.1)),
    case("2-D dilated, unlike per axis", (1, 2, 6, 9), (2, 2, 3, 3), dilation=(2, 3), padding=(2, 3), mode="replicate"),
    case("2-D dilated and reflected", (3, 1, 5, 6), (2, 1, 3, 3), dilation=(2, 2), padding=(2, 2), mode="reflect"),
    case("(4,3) by (4,1)", (3, 2, 8, 5), (3, 2, 4, 3), stride=(4, 1), padding=(0, 1), mode="replicate", slopes=(None, 0.2)),
    case("(4,3) by (4,1), rows left over", (1, 2, 11, 5), (2, 2, 4, 3), stride=(4, 1), padding=(0, 1), mode="reflect"),
    case("(5,3) by (2,1)", (3, 1, 9, 4), (3, 1, 5, 3), stride=(2, 1), padding=(2, 1), mode="replicate", slopes=(0.2, None)),
    case("(3,3) by (2,2)", (3, 2, 7, 6), (2, 2, 3, 3), stride=(2, 2), padding=(1, 1)),
    case("(3,3) by (2,2), not padded", (2, 2, 8, 7), (3, 2, 3, 3), stride=(2, 2), slopes=(0.2, None)),
    case("(3,3) by (2,2), replicated", (1, 2, 6, 7), (2, 2, 3, 3), stride=(2, 2), padding=(1, 1), mode="replicate"),
    case("(5,1) by (3,1)", (3, 2, 10, 3), (2, 2, 5, 1), stride=(3, 1), padding=(2, 0), slopes=(None, 0.1)),
    case("stride over the kernel", (1, 2, 7, 8), (2, 2, 2, 1), stride=(3, 2)),
    case("stride and dilation", (1, 2, 6, 9), (2, 2, 2, 3), stride=(2, 2), dilation=(3, 2), padding=(1, 2), mode="reflect"),
    case("kernel as large as the input", (3, 2, 3, 4), (2, 2, 3, 4)),
    case("transposed (4,3) by (4,1)", (3, 3, 2, 4), (3, 2, 4, 3), stride=(4, 1), padding=(0, 1), slopes=(0.2, 0.3), transposed=True),
    case("transposed 1-D, 16 by 8", (1, 3, 1, 4), (3, 2, 1, 16), stride=(1, 8), padding=(0, 4), slopes=(0.1, None), transposed=True),
    case("transposed 1-D, 4 by 2", (3, 2, 1, 5), (2, 3, 1, 4), stride=(1, 2), padding=(0, 1), slopes=(0.1, None), transposed=True),
    case("transposed 1-D, 5 by 3", (1, 2, 1, 4), (2, 2, 1, 5), stride=(1, 3), padding=(0, 1), transposed=True),
    case("transposed 2-D, gaps", (1, 2, 3, 2), (2, 2, 2, 2), stride=(3, 3), padding=(1, 0), transposed=True),
]
print("[" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]")
