"""Right uses of the public functions, for mypy --strict."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import vggkit
from vggkit.notation.overrides import Overrides

summary = vggkit.summarize("D", batch=np.int64(2), num_classes=np.int32(10), dtype=torch.float16, width=np.float32(0.5))
assert_type(summary["block1_conv1"].parameters, int)
vggkit.summarize("D", input=(np.int64(3), 64, 64), dropout=np.float64(0.1), batch_norm=True, head=None)
vggkit.memory("D", dtype=torch.bfloat16, batch=np.uint8(3), freeze="block1", checkpoint=["block2"], autocast=False)
assert_type(vggkit.max_batch("D", np.int64(2**34), optimizer="adamw", freeze=["block1"], num_classes=10), int)
vggkit.compare("A", "D", batch=np.int16(2), dtype=torch.float64, pool="avg").diff()
vggkit.find(["A", "D"], vary={"width": np.arange(1, 3)}, where={"weight_layers": np.int64(16)}, limit=np.int64(3))
vggkit.find("A", figures="parameters", where={"parameters": ["<15M", ">1M"]}, num_classes=3)
vggkit.explain("D", "conv3_1", batch=np.int64(2), dtype=torch.float32)
vggkit.reconcile("D", np.int64(138357544), num_classes=1000)
vggkit.plot("D", kind="cost", batch=np.int64(2), dtype=torch.float16)
vggkit.report("D", batch=np.int64(2), width="0.5 multiple of 8")
vggkit.load("D", activation={"leaky-relu": 0.2}, in_channels=np.int64(1))

model = vggkit.build("A", num_classes=np.int64(10), seed=np.int64(0), dtype=torch.float32, freeze="block1", width=0.1)
assert_type(model(torch.zeros(1, 3, 224, 224)), Tensor)
assert_type(model.freeze("fc1", ["block2"]).unfreeze("fc1").train(), vggkit.VGG)
weight: Tensor = model.block5.conv3.weight
model.predictions = nn.Linear(512, 3)
taps = vggkit.features("A", "relu1_1", frozen=True, device="meta", num_classes=3)
assert_type(taps(torch.zeros(1, 3, 224, 224)), "dict[str, Tensor]")

changes: Overrides = {"num_classes": 10, "batch_norm": True}
vggkit.summarize("D", **changes)
vggkit.build("D", device="meta", **changes)
