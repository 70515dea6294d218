#!/usr/bin/env python3
"""Use the image's PyTorch packages on the CPU: torch-proof SUMMARY.json [--cuda 12.1]."""

import argparse
import ctypes
import glob
import json
import os
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary")
    parser.add_argument("--cuda", default="", help="the expected torch.version.cuda")
    arguments = parser.parse_args()

    start = time.monotonic()
    import numpy
    import torch
    import torchaudio
    import torchvision

    loaded = time.monotonic() - start
    if arguments.cuda and torch.version.cuda != arguments.cuda:
        print(f"torch.version.cuda is {torch.version.cuda}, not {arguments.cuda}", file=sys.stderr)
        return 1

    # Compare a convolution with the same sum in NumPy.
    torch.manual_seed(0)
    picture, kernel = torch.randn(1, 3, 32, 32), torch.randn(4, 3, 3, 3)
    found = torch.nn.functional.conv2d(picture, kernel).numpy()
    windows = numpy.lib.stride_tricks.sliding_window_view(picture.numpy(), (3, 3), axis=(2, 3))
    wanted = numpy.einsum("nchwij,ocij->nohw", windows, kernel.numpy())
    error = float(numpy.abs(found - wanted).max())
    if found.shape != (1, 4, 30, 30) or error > 1e-3:
        print(f"conv2d is wrong: {found.shape}, off by {error}", file=sys.stderr)
        return 1

    # Train one step of resnet18; call an operator of torchvision and a transform of torchaudio.
    model = torchvision.models.resnet18(weights=None, num_classes=2)
    loss = torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.tensor([0, 1]))
    loss.backward()
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    tone = torchaudio.functional.resample(torch.sin(torch.arange(16000) * 0.1), 16000, 8000)
    if kept != [0, 2] or tone.shape != (8000,) or model.fc.weight.grad is None:
        print(f"nms gives {kept}, resample {tuple(tone.shape)}", file=sys.stderr)
        return 1

    # The CUDA libraries are wheels, too. Without a driver they cannot run, but they must load.
    libraries = sorted(
        glob.glob(
            os.path.join(
                os.path.dirname(os.path.dirname(torch.__file__)), "nvidia", "*", "lib", "lib*.so.*"
            )
        )
    )
    for library in libraries:
        ctypes.CDLL(library)

    result = {
        "frames": 1,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "torchaudio": torchaudio.__version__,
            "numpy": numpy.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        },
        "conv2d_error": error,
        "nms": kept,
        "loss": float(loss),
        "cuda_available": torch.cuda.is_available(),
        "cuda_libraries_loaded": len(libraries),
        "architectures": torch._C._cuda_getArchFlags(),
        "import_seconds": round(loaded, 2),
    }
    with open(arguments.summary, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
