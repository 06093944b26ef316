"""What tests of checkpoints may use."""

from __future__ import annotations

import pytest

from vggkit.base import hdf5, rehearsal
from vggkit.model.weights.container import Hdf5


@pytest.fixture
def rehearsed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearse good HDF5 files in this process, for tests of what is in them: each process of its own takes 0.1 s."""
    in_its_own_process = Hdf5.rehearse

    def rehearse(container: Hdf5) -> None:
        try:
            rehearsal.rehearse(container.location, container.MEMBER, hdf5.LARGEST_ATTRIBUTE)
        except Exception:  # what is refused is refused as users see it
            in_its_own_process(container)

    monkeypatch.setattr(Hdf5, "rehearse", rehearse)
