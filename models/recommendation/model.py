"""SASRec: a causal self-attention model of the next title (Kang & McAuley, ICDM 2018, arXiv:1808.09781).

Differences from the paper, each for a reason:
- pre-norm blocks and GELU, which train without warm-up (Xiong et al., 2020, arXiv:2002.04745);
- a softmax over titles in place of one sampled negative per positive, whose over-confidence is what holds the
  paper's loss back (Petrov & Macdonald, RecSys 2023, arXiv:2308.07192);
- a start token before every sequence, so that an empty history is served by the same model;
- dropout on what a block adds, not inside it: the masks of the attention matrix alone took 40 % of an epoch on CPU;
- a short causal convolution in every block (So et al., "Primer", NeurIPS 2021, arXiv:2109.08668): what follows from the
  last two titles need not be found by attention;
- a bias per title, which learns popularity so that the embeddings need not.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from models.configuration import Hyperparameters
from models.recommendation.softmax import cross_entropy, sampled_cross_entropy

# Up to here every title is scored, above it a sample: all titles rank better (README.md). What it costs, in CPU seconds
# a step of 2,240 places: .08 against .09 with 1,682 titles and 1,024 drawn ones, .11 against .07 with 5,000, .40
# against .08 with 20,000, 2.1 against .13 with 100,000.
FULL_SOFTMAX_TITLES = 20_000


@dataclass(frozen=True)
class RecommenderConfig(Hyperparameters):
    """Everything that decides what is learnt from a training set."""

    of = "the recommender"

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    recent: int = 3
    """Places that a block mixes directly, before attention: the current one and those just before it."""
    dropout: float = 0.3
    max_length: int = 200
    """Places of a sequence, the start token's included."""
    lr: float = 3e-3
    weight_decay: float = 0.01
    averaging: float = 0.998
    """Share of the running mean of the weights that a step keeps; the mean is what is judged, kept and served."""
    batch_size: int = 32
    """Sequences a step, over all workers."""
    epochs: int = 40
    patience: int = 6
    """Epochs without a better validation NDCG@10 after which training stops."""
    cooldown: int = 0
    """The last of `epochs` over which the learning rate falls, epoch by epoch in equal steps, to a tenth of `lr`."""
    judged_rows: int = 2_000
    """Validation rows that judge an epoch, evenly spread; judging all of them can cost more than learning."""
    negatives: int = 1_024
    """Titles drawn per step for the sampled softmax; used in catalogues of more than 20,000 titles only."""
    seed: int = 0

    def __post_init__(self) -> None:
        self._at_least(
            1, "dim", "blocks", "heads", "recent", "batch_size", "epochs", "patience", "judged_rows", "negatives"
        )
        self._at_least(2, "max_length")
        self._at_least(0, "weight_decay")
        self._require(self.dim % self.heads == 0, "dim", f"a multiple of heads ({self.heads})")
        self._require(0 <= self.dropout < 1, "dropout", "in [0, 1)")
        self._require(self.lr > 0, "lr", "above 0")
        self._require(0 <= self.averaging < 1, "averaging", "in [0, 1)")
        self._require(0 <= self.cooldown <= self.epochs, "cooldown", f"from 0 to epochs ({self.epochs})")

    def lr_of(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        cooled = max(0, epoch - (self.epochs - self.cooldown))
        return self.lr * (1 - 0.9 * cooled / max(1, self.cooldown))


class Block(nn.Module):
    """One pre-norm transformer block: neighbouring places, causal self-attention, a feed-forward net, each added."""

    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.recent = nn.Parameter(torch.zeros(config.recent, config.dim))
        self.attention_norm = nn.LayerNorm(config.dim)
        self.queries_keys_values = nn.Linear(config.dim, 3 * config.dim)
        self.attended = nn.Linear(config.dim, config.dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, 4 * config.dim),
            nn.GELU(),
            nn.Linear(4 * config.dim, config.dim),
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, length, dim] to the same shape."""
        rows, length, dim = hidden.shape
        hidden = hidden + self._of_recent(hidden)
        joined = self.queries_keys_values(self.attention_norm(hidden))
        queries, keys, values = joined.view(rows, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        hidden = hidden + self.drop(self.attended(mixed.transpose(1, 2).reshape(rows, length, dim)))
        added: torch.Tensor = hidden + self.drop(self.feed_forward(hidden))
        return added

    def _of_recent(self, hidden: torch.Tensor) -> torch.Tensor:
        """The causal convolution, channel by channel: a weighted sum of each place and the ones just before it."""
        mixed = hidden * self.recent[0]
        for back in range(1, min(len(self.recent), hidden.shape[1])):
            mixed = mixed + functional.pad(hidden[:, :-back] * self.recent[back], (0, 0, back, 0))
        return mixed


class SASRec(nn.Module):
    """Titles in, scores of every title as the next one out. Token `titles` is the start of a sequence."""

    def __init__(self, titles: int, config: RecommenderConfig) -> None:
        super().__init__()
        self.titles, self.config = titles, config
        self.tokens = nn.Embedding(titles + 1, config.dim)
        self.places = nn.Embedding(config.max_length, config.dim)
        self.bias = nn.Parameter(torch.zeros(titles))
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=config.dim**-0.5)

    @property
    def start_token(self) -> int:
        """The token that leads every sequence."""
        return self.titles

    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        """[rows, length] tokens to [rows, length, dim]: what is known at each place of what comes next."""
        places = torch.arange(inputs.shape[1], device=inputs.device)
        hidden = self.drop(self.tokens(inputs) + self.places(places))
        for block in self.blocks:
            hidden = block(hidden)
        normed: torch.Tensor = self.norm(hidden)
        return normed

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., dim] to [..., titles]: log-odds of each title, up to a constant per row."""
        return hidden @ self.tokens.weight[: self.titles].T + self.bias

    def forward(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        learnt: torch.Tensor,
        negatives: torch.Tensor | None = None,
        log_expected: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The summed cross-entropy in nats of the learnt targets (all [rows, length]); a scalar.

        With `negatives` [n] and `log_expected` [n], the log of how often each is expected to be drawn, the
        softmax is estimated from them (see `sampled_cross_entropy`).
        """
        hidden, wanted = self.encode(inputs)[learnt], targets[learnt]
        if negatives is None or log_expected is None:
            return cross_entropy(hidden, self.tokens.weight[: self.titles], self.bias, wanted)
        positive = (hidden * self.tokens(wanted)).sum(-1) + self.bias[wanted]
        drawn = hidden @ self.tokens(negatives).T + self.bias[negatives]
        drawn = drawn.masked_fill(negatives[None, :] == wanted[:, None], float("-inf"))
        return sampled_cross_entropy(positive, drawn, log_expected)
