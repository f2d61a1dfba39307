from __future__ import annotations

import pytest

from nas.errors import Unsupported
from nas.training.device import available_devices, resolve_device


def test_auto_is_the_preferred_device() -> None:
    assert resolve_device("auto").type == available_devices()[0]
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["abacus", "cpu:x", "", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match="no device"):
        resolve_device(name)
