"""How much CO₂ a country's electricity stands for, by the table that codecarbon ships.

Its tracker is not used: see ``docs/decisions/0007-the-bill.md``. Loaded by who starts workers; the
job keeps the figure, so that nobody else needs the table.
"""

from __future__ import annotations

import json

from nas.settings import Settings
from search_spaces.errors import InvalidInput, Problem

GRAMS_PER_KG = 1000.0


def located(settings: Settings) -> Settings:
    """The settings with the carbon intensity of their country, unless they give one themselves.

    Raises:
        InvalidInput: the country is not in the table.
    """
    if settings.country is None or settings.co2_kg_per_kwh is not None:
        return settings
    intensity = country_intensity(settings.country)
    return settings.model_copy(update={"co2_kg_per_kwh": intensity})


def country_intensity(country: str) -> float:
    """Kilograms of CO₂ equivalent per kWh, yearly mean of the country's production.

    country: ISO 3166 alpha-3.

    Source: codecarbon's ``global_energy_mix.json``, after Our World in Data.

    Raises:
        InvalidInput: there is no figure for it.
    """
    from codecarbon.input import DataSource  # only for who asks: it brings much along

    source = DataSource()  # type: ignore[no-untyped-call]  # the library leaves it untyped
    table = json.loads(source.global_energy_mix_data_path.read_text(encoding="utf-8"))
    known = {code: mix["carbon_intensity"] for code, mix in table.items()}
    grams = known.get(country)
    if grams is None:
        allowed = tuple(sorted(code for code, value in known.items() if value is not None))
        message = f"no carbon intensity is known for {country}: give co2_kg_per_kwh instead"
        raise InvalidInput([Problem("/country", message, allowed)])
    return float(grams) / GRAMS_PER_KG
