"""The carbon intensity of where a worker is told to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.carbon import country_intensity, located
from nas.settings import Settings
from search_spaces.errors import InvalidInput


def test_a_country_has_its_own_intensity() -> None:
    # Sweden's electricity is water and uranium, Poland's coal
    assert 0.005 < country_intensity("SWE") < 0.1 < 0.5 < country_intensity("POL") < 1.0


def test_an_unknown_country_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInput) as refused:
        country_intensity("XXX")
    (problem,) = refused.value.problems
    assert problem.pointer == "/country"
    assert {"DEU", "FRA"} <= set(problem.allowed)


def test_what_the_settings_give_themselves_goes_first(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, country="DEU")
    assert located(settings).co2_kg_per_kwh == country_intensity("DEU")
    given = settings.model_copy(update={"co2_kg_per_kwh": 0.01})
    assert located(given) == given
    nowhere = Settings(data=tmp_path)
    assert located(nowhere).co2_kg_per_kwh is None


def test_nothing_is_sent_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    country_intensity("DEU")
    assert list(tmp_path.iterdir()) == []
