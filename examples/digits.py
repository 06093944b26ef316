"""A small VGG from YAML to named pictures: trained on scikit-learn's handwritten digits, saved, and tried out.

Run `python examples/digits.py` with vggkit and scikit-learn installed. It takes seconds on a processor.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import vggkit

CONFIG = Path(__file__).with_suffix(".yaml")
EPOCHS = 10
BATCH = 32


def inputs(digits: Tensor) -> Tensor:
    """Return digits of 0 … 16 as the network's inputs from 0 to 1: what `preprocess:` makes of their pictures."""
    return digits.float()[:, None] / 16


def pictures(digits: Tensor, classes: Tensor, folder: Path) -> None:
    """Write digits as PNG files whose names begin with their classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (digit, true) in enumerate(zip(digits, classes.tolist())):
        Image.fromarray((digit * 15).byte().numpy()).save(folder / f"{true}-{number:03}.png")


def train(model: vggkit.VGG, digits: Tensor, classes: Tensor) -> None:
    """Fit a model to digits."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
    steps = EPOCHS * -(-len(digits) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for batch in torch.randperm(len(digits)).split(BATCH):
            loss = nn.functional.cross_entropy(model(inputs(digits[batch])), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch:2}: loss {sum(losses) / len(losses):.3f}")


@torch.inference_mode()
def right(model: vggkit.VGG, digits: Tensor, classes: Tensor) -> int:
    """Return how many digits a model tells right."""
    return int((model.eval()(inputs(digits)).argmax(1) == classes).sum())


def main() -> None:
    """Train, test, save, and say what to try next."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where the files are written")
    output: Path = parser.parse_args().output

    data = load_digits()
    split = train_test_split(data.images, data.target, test_size=500, random_state=0)
    digits, held_out, classes, held_out_classes = map(torch.from_numpy, split)

    torch.set_num_threads(1)  # more would wait for each other: these layers are too small to share out
    torch.manual_seed(0)
    model = vggkit.build(CONFIG, seed=0)
    print(vggkit.summarize(model.network))
    train(model, digits, classes)
    count = right(model, held_out, held_out_classes)
    print(f"held out: {count} of {len(held_out)} right, {count / len(held_out):.1%}")

    pictures(held_out[:20], held_out_classes[:20], output / "digits")
    vggkit.save_weights(model, output / "digits.safetensors")
    print("Now try:")
    print(f"  vggkit inspect {output / 'digits.safetensors'}")
    print(f"  vggkit classify {output / 'digits'}/*.png --weights {output / 'digits.safetensors'} --top 1")


if __name__ == "__main__":
    main()
