"""Train a small GPT for a fixed budget. Sessions edit only this file; everything it imports is fixed.

    overnight run --target .                # a session: edit, train, score, keep what helps
    python -m nanogpt_target --target .     # one run: prepare, train, score

The harness owns the seed, the data and their order, the clock and the checkpoint. This file holds the rest, in this
order: hyperparameters, model, optimiser, schedule, loop.
"""

# mypy: disable-error-code="arg-type, index, misc, no-any-return, no-untyped-call, union-attr"
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from nanogpt_target import harness

# --- hyperparameters ---
DEPTH = 8  # transformer blocks
ASPECT_RATIO = 64  # width = DEPTH * ASPECT_RATIO, rounded up to a multiple of HEAD_DIM
HEAD_DIM = 128  # channels per attention head
DEVICE_BATCH_SIZE = 128  # rows per forward pass
TOTAL_BATCH_SIZE = 2**19  # tokens per optimiser step
EMBEDDING_LR = 0.6  # AdamW, token embedding
UNEMBEDDING_LR = 0.004  # AdamW, output head
MATRIX_LR = 0.04  # Muon, matrices of the blocks
SCALAR_LR = 0.5  # AdamW, scalars per layer
WEIGHT_DECAY = 0.2  # Muon, decays linearly to 0
WARMUP_RATIO = 0.0  # fraction of the budget
WARMDOWN_RATIO = 0.5  # fraction of the budget
FINAL_LR_FRAC = 0.0  # final learning rate as a fraction of the peak
WINDOW_PATTERN = "SSSL"  # attention window by layer: S half the context, L all; the last layer is always L
# --- end of hyperparameters ---

SOFTCAP = 15.0  # logits are bounded by ±SOFTCAP
MUON_MOMENTUM = 0.95  # rises from 0.85 in MOMENTUM_STEPS steps
MOMENTUM_STEPS = 300
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

    @property
    def short_window(self) -> int:
        return max(1, self.sequence_length // 2)

    def is_short(self, layer: int) -> bool:
        letter = self.window_pattern[layer % len(self.window_pattern)]
        return letter == "S" and layer < self.depth - 1


def norm(x: Tensor) -> Tensor:
    """RMS norm without a learned scale."""
    return F.rms_norm(x, (x.size(-1),))


def rotary_tables(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, each [length, head_dim / 2]."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)
    return angle.cos(), angle.sin()


def window_mask(length: int, window: int) -> Tensor:
    """Bool [length, length]: a query attends to itself and to the ``window - 1`` positions before it."""
    position = torch.arange(length)
    back = position[:, None] - position[None, :]
    return (back >= 0) & (back < window)


def block_mask(length: int, window: int, device: torch.device) -> BlockMask:
    """``window_mask`` for a compiled ``flex_attention``, which skips blocks that are masked entirely."""

    def attends(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    return create_block_mask(attends, None, None, length, length, device=device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x [B, H, T, D] (Su et al. 2021); pairs channel i with i + D / 2."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with QK norm. ``mask`` restricts the keys of a query; None: all earlier ones."""

    def __init__(self, config: Config):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor | None) -> Tensor:
        rows, length, width = x.shape
        q, k, v = (f(x).view(rows, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if isinstance(mask, BlockMask):
            y = flex_attention(q.to(v.dtype), k.to(v.dtype), v, block_mask=mask)
        else:
            with torch.autocast("cpu", enabled=False):  # attention on CPUs is faster in float32 than in bf16
                q, k, v = (q, k, v) if x.is_cuda else (q.float(), k.float(), v.float())
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(y.transpose(1, 2).reshape(rows, length, width))


class MLP(nn.Module):
    """Hidden width of 4 times the model width, squared ReLU (So et al. 2021)."""

    def __init__(self, config: Config):
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor | None) -> Tensor:
        x = x + self.attention(norm(x), cos, sin, mask)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.residual_scale = nn.Parameter(torch.ones(config.depth))
        self.input_scale = nn.Parameter(torch.zeros(config.depth))  # weight of the embedding in the input of each block
        cos, sin = rotary_tables(config.sequence_length, config.head_dim)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("short", window_mask(config.sequence_length, config.short_window), persistent=False)
        self.blockwise: tuple[BlockMask, BlockMask] | None = None  # long and short; compiled, full rows only
        self.initialise()

    def initialise(self) -> None:
        """Unit embeddings, matrices of variance 1 / width, zeros for the output matrix of each sub-layer."""
        nn.init.normal_(self.embedding.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.001)
        bound = (3.0 / self.config.width) ** 0.5
        for block in self.blocks:
            for matrix in (block.attention.q, block.attention.k, block.attention.v, block.mlp.up):
                nn.init.uniform_(matrix.weight, -bound, bound)
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)

    def attend_blockwise(self, device: torch.device) -> None:
        """Use block masks in attention. The model must then be compiled, and its rows must have full length."""
        length = self.config.sequence_length
        self.blockwise = block_mask(length, length, device), block_mask(length, self.config.short_window, device)

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """Float32 logits [B, T, V] of the next token for ids [B, T]; with targets [B, T], the mean loss in nats."""
        length = ids.size(1)
        cos, sin = self.cos[:length], self.sin[:length]
        masks = self.blockwise or (None, self.short[:length, :length])
        x = norm(self.embedding(ids))
        if x.is_cuda:
            x = x.bfloat16()  # the residual stream takes most of the memory
        first = x
        for layer, block in enumerate(self.blocks):
            x = self.residual_scale[layer].to(x) * x + self.input_scale[layer].to(x) * first
            x = block(x, cos, sin, masks[self.config.is_short(layer)])
        logits = self.head(norm(x) / SOFTCAP).float()  # division is cheaper here than on the logits
        logits = SOFTCAP * torch.tanh(logits)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# optimiser


@torch.no_grad()
def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Approximately nearest semi-orthogonal matrices of g [N, R, C]: Newton-Schulz (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if harness.fast_bf16(g.device) else g
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)  # a x + (b s + c s s) x
    return (x.mT if tall else x).to(g.dtype)


@dataclass
class Group:
    """Parameters that share a learning rate, with their optimiser state."""

    params: list[Tensor]
    peak_lr: float
    lr: float = 0.0
    state: dict[str, list[Tensor]] = field(default_factory=dict)


class AdamW:
    """Adam with bias correction (Kingma and Ba 2015), without weight decay."""

    def __init__(self, groups: list[Group], betas: tuple[float, float], eps: float = 1e-10):
        self.groups, self.betas, self.eps, self.steps = groups, betas, eps, 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        b1, b2 = self.betas
        for group in self.groups:
            gradients = [p.grad for p in group.params]
            if not group.state:
                group.state = {name: [torch.zeros_like(p) for p in group.params] for name in ("mean", "square")}
            mean, square = group.state["mean"], group.state["square"]
            torch._foreach_lerp_(mean, gradients, 1 - b1)
            torch._foreach_mul_(square, b2)
            torch._foreach_addcmul_(square, gradients, gradients, 1 - b2)
            size = torch._foreach_div(square, 1 - b2**self.steps)
            torch._foreach_sqrt_(size)
            torch._foreach_add_(size, self.eps)
            torch._foreach_addcdiv_(group.params, mean, size, -group.lr / (1 - b1**self.steps))


class Muon:
    """Orthogonalised momentum (Jordan et al. 2024). Matrices of equal shape form a group, updated as one batch."""

    def __init__(self, matrices: list[Tensor], peak_lr: float, momentum: float, weight_decay: float):
        shapes: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.groups = [Group(group, peak_lr) for group in shapes.values()]
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self) -> None:
        for group in self.groups:
            gradient = torch.stack([p.grad for p in group.params])
            if not group.state:
                group.state = {"velocity": [torch.zeros_like(gradient)]}
            (velocity,) = group.state["velocity"]
            velocity.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp_(velocity, self.momentum))  # Nesterov
            scale = max(1.0, update.size(-2) / update.size(-1)) ** 0.5
            torch._foreach_mul_(group.params, 1 - group.lr * self.weight_decay)
            torch._foreach_add_(group.params, list(update.unbind()), alpha=-group.lr * scale)


def make_optimisers(model: GPT) -> tuple[AdamW, Muon]:
    """Muon for the matrices of the blocks, AdamW for the rest; embedding and head rates scale as width**-0.5."""
    scale = (model.config.width / 768) ** -0.5
    adamw = AdamW(
        [
            Group([model.embedding.weight], EMBEDDING_LR * scale),
            Group([model.head.weight], UNEMBEDDING_LR * scale),
            Group([model.residual_scale], SCALAR_LR * 0.01),
            Group([model.input_scale], SCALAR_LR),
        ],
        ADAM_BETAS,
    )
    return adamw, Muon([p for p in model.blocks.parameters() if p.ndim == 2], MATRIX_LR, MUON_MOMENTUM, WEIGHT_DECAY)


# schedule


def learning_rate_share(progress: float) -> float:
    """Learning rate as a fraction of the peak: linear warm-up, plateau, linear warm-down. Progress is in [0, 1]."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress <= 1 - WARMDOWN_RATIO:
        return 1.0
    left = max(0.0, 1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


def set_schedule(adamw: AdamW, muon: Muon, progress: float, step: int) -> None:
    share = learning_rate_share(progress)
    for group in adamw.groups + muon.groups:
        group.lr = group.peak_lr * share
    muon.momentum = 0.85 + (MUON_MOMENTUM - 0.85) * min(1.0, step / MOMENTUM_STEPS)
    muon.weight_decay = WEIGHT_DECAY * (1 - progress)


# loop


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to bf16 on devices with fast bf16 matrix products; otherwise off."""
    return torch.autocast(device.type, torch.bfloat16, enabled=harness.fast_bf16(device))


def main() -> None:
    run = harness.start()
    device = run.device
    model = GPT(Config(run.meta.vocab_size, run.meta.sequence_length)).to(device)
    loss_of: Callable[..., Tensor] = model
    if device.type == "cuda":
        model.attend_blockwise(device)
        loss_of = torch.compile(model, dynamic=False)
    accumulation = max(1, TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * run.meta.sequence_length))

    def micro_step(ids: Tensor, targets: Tensor) -> Tensor:
        with mixed_precision(device):
            loss = loss_of(ids, targets) / accumulation
        loss.backward()
        return loss.detach()

    def update(progress: float, step: int) -> None:
        set_schedule(adamw, muon, progress, step)
        adamw.step()
        muon.step()
        model.zero_grad(set_to_none=True)

    # Warm up on random batches: kernels compile and memory is allocated before the clock starts. Then restore all.
    fresh = copy.deepcopy(model.state_dict())
    adamw, muon = make_optimisers(model)
    for ids, targets in run.warmup_batches(DEVICE_BATCH_SIZE):
        micro_step(ids, targets)
        update(progress=0.5, step=0)
    model.load_state_dict(fresh)
    adamw, muon = make_optimisers(model)

    run.begin(model)
    while run.training:
        loss = torch.zeros((), device=device)
        for _ in range(accumulation):
            loss += micro_step(*run.batch(DEVICE_BATCH_SIZE))
        update(run.progress, run.step)
        run.finish_step(loss)
    harness.save(model)


def load(checkpoint: str, device: str) -> Callable[[Tensor], Tensor]:
    """A stateless function from int64 ids [B, T] to float32 logits [B, T, V] of the next token."""
    weights, meta = harness.read_checkpoint(checkpoint, device)
    model = GPT(Config(meta["vocab_size"], meta["sequence_length"])).to(device)
    model.load_state_dict(weights)
    model.eval()

    @torch.inference_mode()
    def logits(ids: Tensor) -> Tensor:
        with mixed_precision(torch.device(device)):
            return model(ids)

    return logits


if __name__ == "__main__":
    main()
