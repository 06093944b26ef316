"""What was claimed beside what was measured, as a table."""

from __future__ import annotations

import pytest

from vggkit.base.tables import FORMATS
from vggkit.model.claims import Claim, claims_table


@pytest.mark.parametrize("format", FORMATS)
def test_claims_are_written_in_every_format(format: str) -> None:
    """Each claim is there with both figures: as data, and in every table behind its sign."""
    claims = [
        Claim("parameters", 1_234, 1_234, "torchinfo"),
        Claim("training peak", 5_678, 5_679, "MemTracker"),
        Claim("on CUDA", 10_000, 10_001, "torch.cuda", exact=False),
    ]
    text = FORMATS[format].write(claims_table("A: 3×32×32", claims))
    for claim in claims:
        for figure in (claim.claimed, claim.measured):
            assert (str(figure) if format in ("json", "csv") else f"{figure:,}") in text
    signs = {"latex": ["$\\surd$", "$\\times$", "i"], "json": ["true", "false"], "csv": ["True", "False"]}
    assert all(sign in text for sign in signs.get(format, ["✓", "✗", "i"]))
