"""Train a small GPT for a fixed budget. This is the one file that changes; everything it imports stays as it is.

    python train.py        # inside a session: `overnight run`

The harness owns the seed, the data and its order, the clock and the checkpoint. Everything else is here, top to bottom:
hyperparameters, model, optimiser, schedule, loop.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt_target import harness

# --- hyperparameters ---
DEPTH = 8  # transformer blocks
ASPECT_RATIO = 64  # width = DEPTH * ASPECT_RATIO, rounded up to whole heads
HEAD_DIM = 128  # channels per attention head
DEVICE_BATCH_SIZE = 128  # rows per forward pass
TOTAL_BATCH_SIZE = 2**19  # tokens per optimiser step
EMBEDDING_LR = 0.6  # AdamW, token embedding
UNEMBEDDING_LR = 0.004  # AdamW, output head
MATRIX_LR = 0.04  # Muon, every matrix inside the blocks
SCALAR_LR = 0.5  # AdamW, per-layer scalars
WEIGHT_DECAY = 0.2  # Muon, decays to 0 with the schedule
WARMUP_RATIO = 0.0  # share of the budget
WARMDOWN_RATIO = 0.5  # share of the budget
FINAL_LR_FRAC = 0.0  # learning rate at the end, as a share of its peak
WINDOW_PATTERN = "SSSL"  # attention span by layer: S half the context, L all of it; the last layer is always L
# --- end of hyperparameters ---

SOFTCAP = 15.0  # logits are squashed into ±SOFTCAP
MUON_MOMENTUM = 0.95
ADAM_BETAS = (0.8, 0.95)


# model


@dataclass
class Config:
    vocab_size: int
    sequence_length: int
    depth: int = DEPTH
    head_dim: int = HEAD_DIM
    width: int = math.ceil(DEPTH * ASPECT_RATIO / HEAD_DIM) * HEAD_DIM
    window_pattern: str = WINDOW_PATTERN

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    def window(self, layer: int) -> int:
        letter = self.window_pattern[layer % len(self.window_pattern)]
        short = letter == "S" and layer < self.depth - 1
        return max(1, self.sequence_length // 2) if short else self.sequence_length


def norm(x: Tensor) -> Tensor:
    """RMS norm without learned scale."""
    return F.rms_norm(x, (x.size(-1),))


def rotary_tables(length: int, head_dim: int, device: torch.device, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """cos and sin of shape [length, head_dim / 2]."""
    frequency = base ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x [B, H, T, D] (Su et al. 2021), halves paired."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with QK norm and a window of the last ``window`` positions."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.heads, self.window = config.heads, config.window(layer)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, masks: dict[int, Tensor]) -> Tensor:
        rows, length, width = x.shape
        q, k, v = (f(x).view(rows, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if self.window >= length:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[self.window][:length, :length])
        return self.out(y.transpose(1, 2).reshape(rows, length, width))


class MLP(nn.Module):
    """Four times as wide inside, squared ReLU (So et al. 2021)."""

    def __init__(self, config: Config):
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, masks: dict[int, Tensor]) -> Tensor:
        x = x + self.attention(norm(x), cos, sin, masks)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.residual_scale = nn.Parameter(torch.ones(config.depth))
        self.input_scale = nn.Parameter(torch.zeros(config.depth))  # how much of the embedding each block sees again
        self.initialise()

    def initialise(self) -> None:
        """Unit embeddings, uniform matrices of variance 1 / width, and zeros where a block joins the residual stream."""
        nn.init.normal_(self.embedding.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.001)
        bound = (3.0 / self.config.width) ** 0.5
        for block in self.blocks:
            for matrix in (block.attention.q, block.attention.k, block.attention.v, block.mlp.up):
                nn.init.uniform_(matrix.weight, -bound, bound)
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, T] → logits of the next token [B, T, V], float32."""
        length = ids.size(1)
        cos, sin = rotary_tables(length, self.config.head_dim, ids.device)
        masks = self.masks(length, ids.device)
        x = first = norm(self.embedding(ids))
        for layer, block in enumerate(self.blocks):
            x = self.residual_scale[layer] * x + self.input_scale[layer] * first
            x = block(x, cos, sin, masks)
        logits = self.head(norm(x)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)

    def masks(self, length: int, device: torch.device) -> dict[int, Tensor]:
        """One mask [T, T] for every window that is shorter than the context: True where attention may look."""
        windows = {self.config.window(layer) for layer in range(self.config.depth)}
        back = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
        return {w: (back >= 0) & (back < w) for w in windows if w < length}


# optimiser


@torch.no_grad()
def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices of g [N, R, C], by a quintic Newton-Schulz iteration (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if g.is_cuda else g
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: matrices of one shape are stacked and updated together. Decoupled weight decay."""

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float, weight_decay: float):
        shapes: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        super().__init__(
            [{"params": group} for group in shapes.values()],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            matrices = group["params"]
            gradient = torch.stack([m.grad for m in matrices])
            state = self.state[matrices[0]]
            velocity = state.setdefault("velocity", torch.zeros_like(gradient))
            velocity.lerp_(gradient, 1 - group["momentum"])
            update = orthogonalise(gradient.lerp_(velocity, group["momentum"]))
            scale = max(1.0, update.size(-2) / update.size(-1)) ** 0.5
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, list(update.unbind()), alpha=-group["lr"] * scale)


def make_optimisers(model: GPT, device: torch.device) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; AdamW's rates shrink with the root of the width."""
    scale = (model.config.width / 768) ** -0.5
    groups = [
        {"params": [model.embedding.weight], "lr": EMBEDDING_LR * scale},
        {"params": [model.head.weight], "lr": UNEMBEDDING_LR * scale},
        {"params": [model.residual_scale], "lr": SCALAR_LR * 0.01},
        {"params": [model.input_scale], "lr": SCALAR_LR},
    ]
    fused = device.type == "cuda"
    adamw = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=1e-10, weight_decay=0.0, fused=fused)
    muon = Muon([p for p in model.blocks.parameters() if p.ndim == 2], MATRIX_LR, MUON_MOMENTUM, WEIGHT_DECAY)
    for optimiser in (adamw, muon):
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return [adamw, muon]


# schedule


def learning_rate_share(progress: float) -> float:
    """Trapezoid: linear warm-up, plateau, linear warm-down to FINAL_LR_FRAC; progress runs from 0 to 1."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress <= 1 - WARMDOWN_RATIO:
        return 1.0
    left = max(0.0, 1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


def set_schedule(optimisers: list[torch.optim.Optimizer], progress: float, step: int) -> None:
    share = learning_rate_share(progress)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak_lr"] * share
            if isinstance(optimiser, Muon):
                group["momentum"] = 0.85 + (MUON_MOMENTUM - 0.85) * min(1.0, step / 300)
                group["weight_decay"] = WEIGHT_DECAY * (1 - progress)


# loop


def main() -> None:
    run = harness.start()
    device = run.device
    model = GPT(Config(run.meta.vocab_size, run.meta.sequence_length)).to(device)
    optimisers = make_optimisers(model, device)
    forward = torch.compile(model, dynamic=False) if device.type == "cuda" else model
    accumulation = max(1, TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * run.meta.sequence_length))

    def micro_step(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = forward(ids)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        (loss / accumulation).backward()
        return loss.detach()

    def update(progress: float, step: int) -> None:
        set_schedule(optimisers, progress, step)
        for optimiser in optimisers:
            optimiser.step()
        model.zero_grad(set_to_none=True)

    # random batches: kernels compile and memory is taken before the clock starts; the weights stay as they were
    for ids, targets in run.warmup_batches(DEVICE_BATCH_SIZE):
        micro_step(ids, targets)
    model.zero_grad(set_to_none=True)

    run.begin(model)
    while run.training:
        loss = torch.zeros((), device=device)
        for _ in range(accumulation):
            loss += micro_step(*run.batch(DEVICE_BATCH_SIZE)) / accumulation
        update(run.progress, run.step)
        run.finish_step(loss)
    harness.save(model)


def load(checkpoint: str, device: str):  # type: ignore[no-untyped-def]
    """A function from ids int64 [B, T] to logits float32 [B, T, V] of the next token, without state between calls."""
    weights, meta = harness.read_checkpoint(checkpoint, device)
    model = GPT(Config(meta["vocab_size"], meta["sequence_length"])).to(device)
    model.load_state_dict(weights)
    model.eval()

    @torch.inference_mode()
    def logits(ids: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device.startswith("cuda")):
            return model(ids)

    return logits


if __name__ == "__main__":
    main()
