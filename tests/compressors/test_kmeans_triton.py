"""K-means in one launch, without a GPU: its arithmetic by Triton's interpreter, its compiling for real."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressors import kmeans as plain
from tests.compressors.test_kmeans import blobs

triton = pytest.importorskip("triton")
kernel = pytest.importorskip("compressors.kmeans_triton")


@pytest.mark.slow
def test_clusters_by_the_interpreter() -> None:
    """In a process of its own: Triton settles when it is imported whether it compiles or interprets."""
    cases = Path(__file__).with_name("kmeans_interpreted.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("samples", "clusters", "generation"), [(16, 16, 80), pytest.param(128, 64, 90, marks=pytest.mark.slow)]
)
def test_compiles_for_gpus(samples: int, clusters: int, generation: int) -> None:
    """The interpreter takes more than the compiler does."""
    sizes = {"SAMPLES": samples, "CLUSTERS": clusters, "FEATURES": 32}
    kinds = {"columns": "*fp32", "means": "*fp32", "assignment": "*i64", "tolerance": "fp32"}
    signature = {name: "constexpr" if name in sizes else kinds.get(name, "i32") for name in kernel._lloyd.arg_names}
    source = triton.compiler.ASTSource(fn=kernel._lloyd, signature=signature, constexprs=sizes)
    target = triton.backends.compiler.GPUTarget("cuda", generation, 32)
    compiled = triton.compile(source, target=target, options=kernel.LAUNCH)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 163 * 1024  # what the smaller of both lets a program have


def test_without_it_the_plain_form_goes_on(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compressors.kmeans_triton", None)
    monkeypatch.delattr("compressors.kmeans_triton")
    plain._one_launch.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert plain._one_launch() is None
    plain._one_launch.cache_clear()
    assert "Triton cannot be used here (ModuleNotFoundError" in caplog.text


def test_on_a_gpu_it_is_taken(device: str) -> None:
    if device == "cpu":
        pytest.skip("there is none")
    assert plain._one_launch() is not None
    for seed in range(5):
        x, start = blobs(128, 197, seed).softmax(1), torch.arange(40)
        assignment, means = plain.kmeans(x.to(device), start.to(device))
        expected, centroids = plain.kmeans(x, start)
        assert torch.equal(assignment.cpu(), expected)
        torch.testing.assert_close(means.cpu(), centroids, rtol=1e-5, atol=1e-6)
