# Writes hifigan-tiny.pth, a checkpoint as the published code saves it, and prints samples of the generator in it.
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import remove_weight_norm, weight_norm

torch.manual_seed(1)


class ResBlock2(nn.Module):
    def __init__(self, channels, kernel, dilations):
        super().__init__()
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, kernel, 1, padding=(kernel - 1) * d // 2, dilation=d))
            for d in dilations
        )

    def forward(self, x):
        for conv in self.convs:
            x = conv(F.leaky_relu(x, 0.1)) + x
        return x


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_pre = weight_norm(nn.Conv1d(128, 8, 7, 1, padding=3))
        self.ups = nn.ModuleList(
            weight_norm(nn.ConvTranspose1d(8 >> i, 4 >> i, 16, 8, padding=4)) for i in range(3)
        )
        self.resblocks = nn.ModuleList(ResBlock2(4 >> i, 3, (1, 2)) for i in range(3))
        self.conv_post = weight_norm(nn.Conv1d(1, 1, 7, 1, padding=3))

    def forward(self, x):
        x = self.conv_pre(x)
        for up, block in zip(self.ups, self.resblocks):
            x = block(up(F.leaky_relu(x, 0.1)))
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


generator = Generator()
with torch.no_grad():
    for name, parameter in generator.named_parameters():
        # Louder than random weights are, and less constant.
        parameter.mul_(0.1 if name.endswith("bias") else 2.5)
torch.save({"generator": generator.state_dict()}, "hifigan-tiny.pth")
# Model files store folded weights as 16-bit floats.
for module in generator.modules():
    if hasattr(module, "weight_g"):
        remove_weight_norm(module)
with torch.no_grad():
    for parameter in generator.parameters():
        parameter.copy_(parameter.half())
mel = (0.37 * torch.arange(4 * 128)).sin().reshape(4, 128).T[None] - 1
samples = generator(mel).flatten().tolist()
print([(n, round(samples[n], 7)) for n in range(0, 2048, 251)])
