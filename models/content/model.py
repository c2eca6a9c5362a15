"""Two towers: a viewer by the titles watched, a title by its metadata alone; a score is their product.

The title's tower sums an embedding of each of its tokens, so that a title nobody has watched has its place among the
others; a second sum of the same tokens is how popular such titles are. The viewer's tower is the mean of what was
watched, where a title that was learnt from brings an embedding of its own on top of its metadata. In training that own
part is dropped for half of the titles, so that histories of new titles are understood too (DropoutNet: Volkovs, Yu &
Poutanen, NeurIPS 2017). Both are learnt from watching alone: part of what a viewer watched is hidden and has to be
guessed among all titles, by the multinomial likelihood (Liang et al., "Variational Autoencoders for Collaborative
Filtering", WWW 2018). Two towers with in-tower metadata: Yi et al., RecSys 2019.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from models.configuration import Hyperparameters


@dataclass(frozen=True)
class ContentConfig(Hyperparameters):
    """Everything that decides what is learnt from a training set."""

    of = "the content model"

    dim: int = 32
    dropout: float = 0.5
    """Share of a history's titles of which only the metadata is seen in training."""
    hidden_share: float = 0.3
    """Share of a viewer's titles that has to be guessed from the rest."""
    cold_share: float = 0.1
    """Share of the titles whose watches are not learnt from: what an epoch is judged by."""
    lr: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    """Viewers a step, over all workers."""
    epochs: int = 60
    patience: int = 10
    """Epochs without a better validation NDCG@10 after which training stops."""
    seed: int = 0

    def __post_init__(self) -> None:
        self._at_least(1, "dim", "batch_size", "epochs", "patience")
        self._at_least(0, "weight_decay")
        self._require(0 <= self.dropout < 1, "dropout", "in [0, 1)")
        self._require(0 < self.hidden_share < 1, "hidden_share", "between 0 and 1")
        self._require(0 < self.cold_share <= 0.5, "cold_share", "above 0, to 0.5")
        self._require(self.lr > 0, "lr", "above 0")


class TwoTowers(nn.Module):
    """The model. A bag: numbers of tokens, and where each title's begin; a history: titles, and where each viewer's."""

    def __init__(self, tokens: int, titles: int, config: ContentConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.EmbeddingBag(tokens, config.dim, mode="sum")
        self.popularity = nn.EmbeddingBag(tokens, 1, mode="sum")
        self.own = nn.Embedding(titles, config.dim)
        self.viewer = nn.Linear(config.dim, config.dim)
        nn.init.normal_(self.token.weight, std=config.dim**-0.5)
        nn.init.zeros_(self.popularity.weight)
        # So that it begins by offering what shares most tokens with the history, and learns from there.
        nn.init.zeros_(self.own.weight)
        nn.init.eye_(self.viewer.weight)
        nn.init.zeros_(self.viewer.bias)

    def titles(self, bags: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """([titles, dim], [titles]) embeddings and log-popularities of titles, by their metadata alone."""
        return self.token(bags, starts), self.popularity(bags, starts).squeeze(-1)

    def viewers(self, watched: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """[viewers, dim] from the embeddings of all titles watched, [watches, dim], and where each viewer's begin."""
        places = torch.arange(len(watched), device=watched.device)
        mean = functional.embedding_bag(places, watched, starts, mode="mean")
        summed: torch.Tensor = self.viewer(mean)
        return summed

    def forward(
        self,
        bags: torch.Tensor,
        starts: torch.Tensor,
        history: torch.Tensor,
        history_starts: torch.Tensor,
        keeps_own: torch.Tensor,
        hidden: torch.Tensor,
    ) -> torch.Tensor:
        """Summed multinomial loss in nats of the titles to guess, each viewer's counted as one; a scalar.

        Args:
            bags: [tokens], starts: [titles], all titles that are learnt from.
            starts: see `bags`.
            history: [watches] numbers of titles shown, of all viewers.
            history_starts: [viewers].
            keeps_own: [watches, 1] 1 where a title shown brings its own embedding, else 0.
            hidden: [viewers, titles] shares of the titles to guess; rows sum to 1.
        """
        embeddings, popularity = self.titles(bags, starts)
        shown = embeddings[history] + self.own(history) * keeps_own
        scores = self.viewers(shown, history_starts) @ embeddings.T + popularity
        return -(hidden * scores.log_softmax(dim=-1)).sum()
