"""The gate: 64 unselected faces each of two GANs, each alone at three times its size, in mixed order, for blind readers.

    python3 bank/gate.py NEW.pth OLD.pth DIR      # from the repository's root; DIR/key.csv says which is whose
    python3 bank/gate.py count DIR JUDGED.csv     # JUDGED.csv: face,verdict (broken, faulty, good)
"""
import sys
from pathlib import Path

import pandas
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.pictures import draw_latents, to_pixels
from p2_gan.inference import load_generator
from p2_gan.model import LATENT


@torch.inference_mode()
def make(new, old, folder):
    folder = Path(folder)
    folder.mkdir(parents=True)
    faces = [pixels for path in (new, old) for pixels in to_pixels(load_generator(path)(draw_latents(64, LATENT).float()))]
    order = torch.randperm(128, generator=torch.Generator().manual_seed(2026)).tolist()
    pandas.DataFrame({"face": range(128), "model": ["new" if i < 64 else "old" for i in order],
                      "index": [i % 64 for i in order]}).to_csv(folder / "key.csv", index=False)
    for sheet in range(8):  # 16 faces each, numbered
        picture = Image.new("RGB", (4 * 212, 4 * 220), "white")
        draw = ImageDraw.Draw(picture)
        for k in range(16):
            n = 16 * sheet + k
            x, y = 212 * (k % 4) + 10, 220 * (k // 4) + 18
            picture.paste(Image.fromarray(faces[order[n]]).resize((192, 192), Image.LANCZOS), (x, y))
            draw.text((x, y - 14), f"face {n}", "black")
        picture.save(folder / f"sheet{sheet}.png")


def count(folder, judged):
    table = pandas.read_csv(Path(folder, "key.csv")).merge(pandas.read_csv(judged), on="face")
    print(pandas.crosstab(table["model"], table["verdict"]))
    print("among the new one's first 32:", table.query("model == 'new' and index < 32")["verdict"].value_counts().to_dict())


make(*sys.argv[1:]) if sys.argv[1] != "count" else count(*sys.argv[2:])
