"""H-DETR's one-to-many branch: a training-only group of queries, several of which are trained on each target."""

from dataclasses import dataclass

from ..structures import Assigner, Queries, QueryGroup


@dataclass(frozen=True)
class OneToMany:
    """What the one-to-many branch is made with. Neither it nor the matching queries see the other.

    Attributes:
        num_queries: how many queries it has, besides the matching ones.
        repeats: how many queries a target is matched to.
        loss_weight: the branch's losses are multiplied by it.
        assign: the one-to-one matcher, to which a target is there ``repeats`` times.

    Source: H-DETR, arXiv 2207.13080, Sec. 3.2 (hybrid branch scheme).
    """

    num_queries: int
    repeats: int
    loss_weight: float
    assign: Assigner

    def __call__(self, queries: Queries) -> QueryGroup:
        """Make the group of its ``queries``."""
        return QueryGroup(
            name="one_to_many",
            queries=queries,
            assign=self.assign,
            target_repeats=self.repeats,
            loss_weight=self.loss_weight,
            loss_suffix="{layer}_one2many",
        )
