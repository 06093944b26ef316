"""Common mistakes: behind each line stands what mypy --strict must find in it, and in no other line."""

import torch

import vggkit
from vggkit.notation.overrides import Overrides

vggkit.summarize("D", num_clases=10)  # call-arg
vggkit.summarize("D", bach=10)  # call-arg
vggkit.summarize("D", batch="10")  # arg-type
vggkit.summarize("D", batch=2.5)  # arg-type
vggkit.summarize("D", dtype=16)  # arg-type
vggkit.summarize("D", num_classes="ten")  # arg-type
vggkit.summarize("D", input=64)  # arg-type
vggkit.max_batch("D", "24GiB", optimzer="adam")  # call-arg
vggkit.max_batch("D", "24GiB", batch=3)  # call-arg
vggkit.memory("D", freeze=1)  # arg-type
vggkit.compare("D", widht=0.5)  # call-arg
vggkit.find("D", wher={})  # call-arg
vggkit.load("D", batchnorm=True)  # call-arg
vggkit.explain("D", "conv3_1", batch_norm="yes")  # arg-type
vggkit.build("D", bach_norm=True)  # call-arg
vggkit.build("D", seed="1")  # arg-type
vggkit.features("D", ["relu1_1"], softmax=True)  # call-arg
vggkit.features("D", ["relu1_1"], frozen="yes")  # arg-type
vggkit.build("D").freeze(3)  # arg-type
print(vggkit.build("D")(torch.zeros(1, 3, 224, 224)).sahpe)  # attr-defined
vggkit.build("D")("tiger.jpg")  # arg-type
print(vggkit.summarize("D").totals.params)  # attr-defined
changes: Overrides = {"clases": 10}  # typeddict-unknown-key
