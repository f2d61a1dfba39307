"""What proposes architectures: names and settings; ``nas/search/strategies/`` has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.values import Value


class StrategyConfig(Value):
    """A search strategy with its settings."""

    title: ClassVar[str]
    citation: ClassVar[str]
    estimates_improvement: ClassVar[bool] = False
    """Whether it can tell when nothing more is to be expected."""

    name: str


class ParetoSearch(StrategyConfig):
    """Cost-exact expected hypervolume improvement, from homogeneous architectures to mixed ones.

    ``exploration`` is the share of candidates drawn at random over strata of the cost.
    """

    title: ClassVar[str] = "Pareto (cost-exact hypervolume improvement)"
    citation: ClassVar[str] = "Emmerich et al. 2006, doi:10.1109/TEVC.2005.859463"
    estimates_improvement: ClassVar[bool] = True

    name: Literal["pareto"] = "pareto"
    startup_trials: Annotated[int, Field(ge=2, le=1000)] = 6
    exploration: Annotated[float, Field(ge=0, le=1)] = 0.1
    pool_size: Annotated[int, Field(ge=16, le=10_000)] = 512


class Nsga2(StrategyConfig):
    """Evolution of a population: non-dominated rank, crowding, tournament, crossover, mutation."""

    title: ClassVar[str] = "NSGA-II"
    citation: ClassVar[str] = "Deb et al. 2002, doi:10.1109/4235.996017"

    name: Literal["nsga2"] = "nsga2"
    population_size: Annotated[int, Field(ge=4, le=1000)] = 16
    crossover_probability: Annotated[float, Field(ge=0, le=1)] = 0.5


class RandomSearch(StrategyConfig):
    """Uniform choices, nothing learned."""

    title: ClassVar[str] = "Random search"
    citation: ClassVar[str] = "Bergstra & Bengio 2012, JMLR 13:281"

    name: Literal["random"] = "random"


class Tpe(StrategyConfig):
    """Optuna's multi-objective tree-structured Parzen estimator, kept in memory."""

    title: ClassVar[str] = "TPE (Optuna)"
    citation: ClassVar[str] = "Ozaki et al. 2022, doi:10.1613/jair.1.13188"

    name: Literal["tpe"] = "tpe"
    startup_trials: Annotated[int, Field(ge=1, le=1000)] = 10


class RegularizedEvolution(StrategyConfig):
    """Evolution in which the oldest die: the best of some of the latest has a mutated child."""

    title: ClassVar[str] = "Regularised evolution"
    citation: ClassVar[str] = "Real et al. 2019, arXiv:1802.01548; So et al. 2019, arXiv:1901.11117"

    name: Literal["regularized_evolution"] = "regularized_evolution"
    population_size: Annotated[int, Field(ge=2, le=1000)] = 24
    sample_size: Annotated[int, Field(ge=1, le=1000)] = 6


class Homogeneous(StrategyConfig):
    """The grid of architectures with the same block in every layer, in random order."""

    title: ClassVar[str] = "Homogeneous grid"
    citation: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762 (one block, repeated)"

    name: Literal["homogeneous"] = "homogeneous"


STRATEGIES: dict[str, type[StrategyConfig]] = {
    s.model_fields["name"].default: s
    for s in (ParetoSearch, Nsga2, RegularizedEvolution, RandomSearch, Tpe, Homogeneous)
}

if TYPE_CHECKING:
    AnyStrategy = StrategyConfig
else:
    AnyStrategy = Annotated[
        ParetoSearch | Nsga2 | RegularizedEvolution | RandomSearch | Tpe | Homogeneous,
        Field(discriminator="name"),
    ]
