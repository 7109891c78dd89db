"""The second stage of problem 1: a flow from noise to the codes of a VAE, which are no N(0, I).

Dai & Wipf 2019, "Diagnosing and Enhancing VAE Models", ICLR, have a second VAE there; here it is a flow (Lipman et al.
2023, "Flow Matching for Generative Modeling", ICLR), trained on the codes of all faces and of their mirror images.
"""
import torch
import torch.nn.functional as F
from torch import nn

from common.run import Run
from common.training import EMA, autocast, learning_rate, optimizer_step
from p1_vae.model import reparameterize

HIDDEN = 32  # width of the hidden layers, as a multiple of the VAE's width
BATCH = 256  # codes
WEIGHT_DECAY = 1e-4
CLIP = 1.0  # the largest norm of the gradient
WARM_UP = 100  # steps in which the learning rate rises
EMA_DECAY = 0.999
STEPS = 16  # of Heun's method; with 32 the Fréchet distance was 0.2 smaller, with 8 1.3 larger
GUIDANCE = 1.5  # how much the network counts when faces are drawn


class VelocityBlock(nn.Module):
    """A residual block in which the time sets scale, shift and gate (Peebles & Xie 2023, "DiT", adaLN)."""

    def __init__(self, width, frequencies):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.time = nn.Linear(2 * frequencies, 3 * width)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x, waves):
        scale, shift, gate = self.time(waves).chunk(3, 1)
        y = self.norm(x) * (1 + scale) + shift
        return x + (1 + gate) * self.out(F.silu(self.hidden(y)))


class Flow(nn.Module):
    """Noise u ~ N(0, I) [N, dim] -> codes z [N, dim], along dz / dt = velocity(z, t) from t = 0 to 1.

    The velocity is the exact one for Gaussian codes, plus what a network adds to it, in the axes of that Gaussian.
    When codes are drawn, what the network adds is multiplied by `guidance`. Above 1 this leads away from what the
    Gaussian alone would draw, towards the likelier codes (Karras et al. 2024, "Guiding a Diffusion Model with a Bad
    Version of Itself", NeurIPS); 0 leaves the Gaussian alone.
    """

    def __init__(self, dim, vae_width, guidance=GUIDANCE, blocks=4, frequencies=8):
        super().__init__()
        width, self.guidance = HIDDEN * vae_width, guidance
        self.start, self.end = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.ModuleList([VelocityBlock(width, frequencies) for _ in range(blocks)])
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)
        self.register_buffer("frequencies", torch.pi * torch.arange(1, frequencies + 1), persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim))
        self.register_buffer("variance", torch.ones(dim))  # along each axis

    def fit_gaussian(self, mean, log_variance):
        """Set the Gaussian to that of the draws of posteriors, means and log variances [N, dim] each."""
        variance, axes = torch.linalg.eigh(mean.T.cov() + log_variance.exp().mean(0).diag())
        for buffer, value in ((self.mean, mean.mean(0)), (self.axes, axes), (self.variance, variance)):
            buffer.copy_(value)

    def velocity(self, z, t, guidance=1.0):
        """[N, dim] at the points z [N, dim] and times t [N, 1]; guidance multiplies what the network adds."""
        y = (z - t * self.mean) @ self.axes
        variance = (1 - t) ** 2 + t ** 2 * self.variance  # of y
        phase = t * self.frequencies
        waves, x = torch.cat([phase.cos(), phase.sin()], 1), self.start(y / variance.sqrt())
        for block in self.blocks:
            x = block(x, waves)
        gaussian = (t * self.variance - (1 - t)) / variance * y  # E[code - noise | y], both about their means
        return (gaussian + guidance * self.end(x)) @ self.axes.T + self.mean

    def loss(self, codes):
        """The velocity's mean squared error on lines from noise to codes [N, dim] (Lipman et al. 2023, eq. 23).

        Times are drawn around the middle (Esser et al. 2024, "Scaling Rectified Flow Transformers", logit-normal).
        """
        noise, t = torch.randn_like(codes), torch.randn_like(codes[:, :1]).sigmoid()
        return F.mse_loss(self.velocity(torch.lerp(noise, codes, t), t), codes - noise)

    def forward(self, u):
        """By Heun's method."""
        for step in range(STEPS):
            t = torch.full_like(u[:, :1], step / STEPS)
            first = self.velocity(u, t, self.guidance)
            u = u + (first + self.velocity(u + first / STEPS, t + 1 / STEPS, self.guidance)) / (2 * STEPS)
        return u


@torch.no_grad()
def encode_all(vae, images):
    """The posteriors of uint8 images [N, 3, 64, 64] and of their mirror images: means and log variances [2N, dim]."""
    with autocast(images.device):
        posteriors = [vae.encode(torch.cat([x, x.flip(3)]).float() / 255) for x in images.split(250)]
    return map(torch.cat, zip(*posteriors))


def train_flow(flow, vae, images, epochs, lr, folder, config, resume):
    """Train `flow` to the codes that `vae` gives for uint8 images [N, 3, 64, 64]; returns its averaged state."""
    print("second stage: encoding all faces", flush=True)
    mean, log_variance = encode_all(vae, images)
    flow.fit_gaussian(mean, log_variance)
    optimizer = torch.optim.AdamW(flow.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    ema = EMA(flow, EMA_DECAY)

    folder.mkdir(exist_ok=True)
    batch = min(BATCH, len(mean))
    steps = len(mean) // batch  # an epoch
    run = Run(folder, config, epochs, steps, {"flow": flow, "optimizer": optimizer, "ema": ema},
              resume and (folder / "checkpoint.pt").exists())
    for epoch in run.epochs_left():
        order = torch.randperm(len(mean), device=images.device)
        for i in range(steps):
            picked = order[i * batch:(i + 1) * batch]
            loss = flow.loss(reparameterize(mean[picked], log_variance[picked]))
            optimizer_step(loss, optimizer, learning_rate(epoch * steps + i, epochs * steps, lr, WARM_UP), CLIP)
            ema.update(flow)
            run.end_step({"flow_loss": loss}, batch)
        run.end_epoch(first={"step": (epoch + 1) * steps})
    return ema.state
