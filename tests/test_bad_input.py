"""Every mistake on the command line: one line that names the key and what would be right, code 2, nothing written."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import flsplit
from flsplit import cli, experiment
from flsplit.errors import RunFailed, UserError

SMALL = ["dataset.train_limit=40", "dataset.test_limit=20", "clients=2", "rounds=2", "engine=inline"]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test starts in an empty folder, on a machine without GPU, Hub or downloaded models."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command line that must be refused: nothing is trained and no file changes; gives the line."""

    def run(*arguments: str) -> str:
        before = contents(tmp_path)
        monkeypatch.setattr(experiment, "execute", must_not_run)
        code = cli.main(list(arguments))
        output = capsys.readouterr()
        assert (code, output.out) == (2, "")
        assert contents(tmp_path) == before
        return one_line(output.err)

    return run


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs a command line up to the first step of training; gives the configurations of its jobs."""

    def run(*arguments: str) -> list[Any]:
        configs: list[Any] = []
        monkeypatch.setattr(experiment, "execute", lambda config, **_: configs.append(config))
        assert cli.main(list(arguments)) == 0
        return configs

    return run


def must_not_run(*_: object, **__: object) -> None:
    pytest.fail("training has begun")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What is in a folder and when it was changed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def one_line(text: str) -> str:
    assert text.startswith("flsplit: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text.rstrip("\n")


# What is typed, and what the line must say: the key, and what would be right.
MISTAKES = [
    # not a key and a value
    ("clients", "'clients'", "key=value"),
    ("=5", "'=5'", "key=value"),
    ("clients = 4", "'clients'", "key=value"),
    ("--clients=4", "--clients=4", "key=value"),
    ("--nonsense", "--nonsense", "--help"),
    ("--config-name other", "--config-name", "key=value"),
    ("--config-dir nowhere", "--config-dir", "must be a folder"),
    # unknown keys, with the nearest one or those that there are
    ("client=4", "unknown key client;", "clients?"),
    ("CLIENTS=4", "unknown key CLIENTS", "clients?"),
    ("clíents=4", "unknown key clíents", "clients?"),
    ("nothing_like_it=1", "unknown key nothing_like_it", "--help"),
    ("clients.more=1", "unknown key clients.more", "clients?"),
    ("compressor.ratoi=0.1", "unknown key compressor.ratoi", "compressor.ratio?"),
    ("compressor=topk compressor.ratio=0.1", "unknown key compressor.ratio", "compressor=topk has rate, index_bits"),
    ("strategy.turn=round", "unknown key strategy.turn", "placement, aggregator"),
    ("partition.sigma=1", "unknown key partition.sigma", "alpha, holdout"),
    ("dataset.train_split=train", "unknown key dataset.train_split", "dataset.train_limit?"),
    ("+more=1", "unknown key more", ""),
    ("++more=1", "unknown key more", ""),
    ("hydra.more=1", "unknown key hydra.more", ""),
    ("foo/bar=1", "foo/bar", ""),
    # groups
    ("compressor=adcc", "compressor must be", "did you mean adc?"),
    ("compressor=null", "compressor must be", "adc, base, bottlenet"),
    ("compressor=", "compressor must be", "adc, base, bottlenet"),
    ("'compressor=[adc,topk]'", "compressor must be", "adc, base, bottlenet"),
    ("compressor=a/b", "compressor must be", "adc, base, bottlenet"),
    ("compressor=my.module", "compressor must be", "module of your own"),
    ("compressor=adc compressor=topk", "compressor", "choose one"),
    ("strategy=splitfed_v9", "strategy must be", "splitfed_v1, splitfed_v2"),
    ("model=deit_tny", "model must be", "did you mean deit_tiny?"),
    ("partition=dirichle", "partition must be", "did you mean dirichlet?"),
    ("dataset=cifar11", "dataset must be", "did you mean cifar10?"),
    ("engine=rai", "engine must be", "inline, ray"),
    ("experiment=nothing_like_it", "experiment", ""),
    # Hydra's other forms
    ("+clients=4", "+clients", "write clients="),
    ("+compressor=topk", "+compressor", "write compressor=topk"),
    ("++compressor=topk", "++compressor", "write compressor=topk"),
    ("~clients", "~clients", "another value"),
    ("~compressor", "~compressor", "another value"),
    ("clients@there=3", "clients@there", "write clients=3"),
    ("compressor@there=topk", "compressor@there", "write compressor=topk"),
    ("clients=1,2", "clients", "need -m"),
    ("'out=a=b'", "out", "'out=\"a=b\"'"),
    ("'out=run (1)'", "out", "'out=\"run (1)\"'"),
    ("out=é", "out", "'out=\"é\"'"),
    ("'clients=${nope}'", "clients", "'nope' not found"),
    ("'clients=${oc.env:NO_SUCH_VARIABLE}'", "clients", "NO_SUCH_VARIABLE"),
    ("'clients=${clients}'", "clients", "Recursive"),
    ("'clients=${'", "clients", "quotes"),
    ("clients=???", "clients", "must be given"),
    ("hydra.mode=MULTIRUN clients=1,2", "hydra.mode", "-m"),
    ("hydra.job.chdir=true", "hydra.job.chdir", "out=FOLDER"),
    ("hydra/launcher=fast", "hydra/launcher", "fast"),
    ("'hydra.run.dir=${nope}' clients=0", "clients", "at least 1"),
    ("hydra.run.dir=a clients=0", "clients", "at least 1"),
    ("hydra.output_subdir=a clients=0", "clients", "at least 1"),
    ("hydra/job_logging=default hydra.verbose=true clients=0", "clients", "at least 1"),
    ("hydra/launcher=basic clients=0", "clients", "at least 1"),
    ("'hydra.searchpath=[file:///nowhere/at/all]'", "hydra.searchpath", "not available"),
    # whole numbers
    ("clients=", "clients", "a whole number"),
    ("clients=many", "clients", "a whole number, got 'many'"),
    ("clients=true", "clients", "a whole number, got true"),
    ("clients=null", "clients", "a whole number, got null"),
    ("clients=2.0", "clients", "a whole number, got 2.0"),
    ("clients=inf", "clients", "a whole number, got inf"),
    ("'clients=[1]'", "clients", "a whole number"),
    ("'clients={a: 1}'", "clients", "a whole number"),
    ("'clients=\"4\"'", "clients", "a whole number, got '4'"),
    ("clients=0", "clients", "at least 1"),
    ("clients=-3", "clients", "at least 1"),
    ("clients=100000000000000000000", "clients", "at most"),
    ("clients=2000", "clients", "only 1437 training samples"),
    ("dataset.train_limit=5", "clients=10", "only 5 training samples"),
    ("clients=4 clients_per_round=5", "clients_per_round", "at most clients (4)"),
    ("clients_per_round=0", "clients_per_round", "at least 1"),
    ("rounds=0", "rounds", "at least 1"),
    ("strategy.aggregator=krum clients=2", "strategy.aggregator", "at least 3 clients"),
    ("strategy.aggregator=fedprox", "strategy.aggregator_args.proximal_mu", "0.01"),
    ("strategy=fedavg rounds=null budget.base_epochs=1", "budget.count_models", "true"),
    ("strategy=parallel strategy.sync=step", "strategy.sync", "gradient or round"),
    ("strategy=sequential strategy.aggregator=krum", "strategy.aggregator", "unknown key"),
    ("rounds=null", "rounds", "budget.base_epochs"),
    ("local_epochs=0", "local_epochs", "at least 1"),
    ("local_steps=0", "local_steps", "at least 1"),
    ("local_epochs=null", "local_epochs", "must be given"),
    ("batch_size=0", "batch_size", "at least 1"),
    ("batch_size=1e3", "batch_size", "a whole number"),
    ("eval_every=0", "eval_every", "at least 1"),
    ("seed=-1", "seed", "must not be negative"),
    ("seed=x", "seed", "a whole number"),
    # other numbers
    ("lr=0", "lr", "a positive number"),
    ("lr=nan", "lr", "a positive number"),
    ("lr=inf", "lr", "a positive number"),
    ("lr=fast", "lr", "a number, got 'fast'"),
    ("lr=true", "lr", "a number, got true"),
    # words
    ("augment=some", "augment", "none, paper"),
    ("optimizer_state=persit", "optimizer_state", "did you mean persist?"),
    ("optimizer_state=null", "optimizer_state", "persist, reset, got null"),
    ("device=gpu", "device", "auto, cpu, cuda"),
    ("device=cuda", "device=cuda", "device=auto"),
    ("precision=fp16", "precision", "fp32, bf16"),
    ("precision=16", "precision", "fp32, bf16, got 16"),
    # the compressor
    ("compressor.ratio=0", "compressor.ratio", "(0, 1]"),
    ("compressor.ratio=1.5", "compressor.ratio", "(0, 1]"),
    ("compressor.ratio=nan", "compressor.ratio", "(0, 1]"),
    ("compressor.ratio=half", "compressor.ratio", "a number"),
    ("compressor.rule=cubic", "compressor.rule", "sqrt, pow_1_5_4_5"),
    ("compressor.vector=cls", "compressor.vector", "cls_score, cls_token"),
    ("compressor.batch_ratio=0.5", "compressor.batch_ratio", "together"),
    ("compressor.at_eval=maybe", "compressor.at_eval", "true or false"),
    ("compressor.at_eval=1", "compressor.at_eval", "true or false"),
    ("+compressor.more=1", "compressor.more", "ratio, rule"),
    ("compressor=topk compressor.rate=-1", "compressor.rate", "(0, 1]"),
    ("compressor=topk compressor.index_bits=few", "compressor.index_bits", "per_sample, per_batch"),
    ("compressor=randtopk compressor.alpha=1", "compressor.alpha", "[0, 1)"),
    ("compressor=c3sl compressor.group=3", "compressor.group", "divide the batch size"),
    ("compressor=c3sl compressor.group=2.5", "compressor.group", "a whole number"),
    ("compressor=bottlenet compressor.ratio=2", "compressor.ratio", "(0, 1]"),
    ("compressor=bottlenet compressor.final_relu=3", "compressor.final_relu", "true or false"),
    ("compressor=base compressor.name=my.module", "compressor", "a module that can be imported"),
    ("compressor=base compressor.name=.x", "compressor", "dotted path"),
    ("compressor=base compressor.name=os.path", "compressor", "must define one Compressor"),
    # the strategy
    ("strategy.placement=here", "strategy.placement", "replica or central"),
    ("strategy=splitfed_v2 strategy.placement=replica", "strategy.placement", "must be central"),
    ("strategy=splitfed_v2 strategy.turn=left", "strategy.turn", "round or step"),
    ("strategy=splitfed_v2 strategy.order=last", "strategy.order", "random or arrival"),
    ("strategy.aggregator=fedavgg", "strategy.aggregator", "did you mean fedavg?"),
    ("strategy.aggregator=null", "strategy.aggregator", "a string"),
    ("strategy.aggregator_args=x", "strategy.aggregator_args", "KEY=VALUE"),
    ("'strategy.aggregator_args=[1, 2]'", "strategy.aggregator_args", "KEY=VALUE"),
    ("'strategy.aggregator_args={more: 1}'", "strategy.aggregator_args.more", "no option of fedavg"),
    ("strategy.aggregator_args.weighted_by_key=x", "strategy.aggregator_args.weighted_by_key", "no option of fedavg"),
    # the partition
    ("partition.alpha=0", "partition.alpha", "above 0"),
    ("partition.alpha=nan", "partition.alpha", "above 0"),
    ("partition.holdout=1", "partition.holdout", "below 1"),
    ("partition=shards partition.shards_per_client=0", "partition.shards_per_client", "1 or more"),
    ("partition=pathological partition.classes_per_client=11", "partition.classes_per_client", "only 10 classes"),
    ("partition=quantity partition.sigma=inf", "partition.sigma", "finite"),
    # the engine
    ("engine.cpus_per_client=0", "engine.cpus_per_client", "a positive number"),
    ("engine.cpus_per_client=nan", "engine.cpus_per_client", "a positive number"),
    ("engine.cpus_per_client=100000", "engine.cpus_per_client", "at most"),
    ("engine.gpus_per_client=0.5", "engine.gpus_per_client", "use auto or 0"),
    ("engine.gpus_per_client=all", "engine.gpus_per_client", "auto or a number"),
    ("engine.gpus_per_client=-1", "engine.gpus_per_client", "auto or a number"),
    ("compile=yes_please", "compile", "true or false"),
    ("compile=true engine.stack=2", "compile=true", "choose one"),
    ("engine.stack=0", "engine.stack", "at least 1"),
    ("engine.stack=2 strategy=splitfed_v2", "engine.stack", "strategy.placement=replica"),
    ("engine.stack=2 strategy.placement=central", "engine.stack", "strategy.placement=replica"),
    ("engine.stack=2 compressor=bottlenet", "engine.stack", "bottlenet trains parameters"),
    ("engine.name=inlin", "engine.name", "did you mean inline?"),
    # the model
    ("model.split_point=0", "model.split_point", "at least 1"),
    ("model.split_point=6", "model.split_point", "between 1 and 5"),
    ("model.split_point=2.0", "model.split_point", "a whole number"),
    ("model.image_size=3", "model.image_size", "between 4 and 4096"),
    ("model.image_size=5000", "model.image_size", "between 4 and 4096"),
    ("model.pretrained=true", "model.pretrained", "must be false"),
    ("model=deit_tiny model.pretrained=false model.image_size=50", "model.image_size", "48 and 64"),
    ("model=deit_tiny model.pretrained=false model.image_size=8", "model.image_size", "multiple of 16"),
    ("model=deit_tiny model.pretrained=false model.split_point=12", "model.split_point", "between 1 and 11"),
    ("model=deit_tiny model.pretrained=no.pth", "model.pretrained", "no such file: no.pth"),
    ("model=deit_tiny model.pretrained=", "model.pretrained", "must not be empty"),
    ("model=deit_tiny model.pretrained=1", "model.pretrained", "true, false or text"),
    ("model=deit_tiny", "model.pretrained=true", "model.pretrained=FILE"),
    ("model=timm", "model.name", "must be given"),
    ("model=timm model.name=vit_tiny_patch16_244", "model.name", "did you mean vit_tiny_patch16_224?"),
    ("model=timm model.name=vit_tiny_patch16_224.augreg_in21", "model.name", "vit_tiny_patch16_224.augreg_in21k?"),
    ("model=timm model.name=resnet18", "resnet18", "not a Vision Transformer"),
    ("model=timm model.name=vit_small_patch16_rope_224", "Eva", "must be a plain timm VisionTransformer"),
    ("model=timm model.name=hf-hub:some/model", "model.name", "a model of timm"),
    ("model=timm model.name=5", "model.name", "'model.name=\"5\"'"),
    # data
    ("dataset=cifar10", "dataset=cifar10", "dataset.path=FOLDER"),
    ("dataset=folder", "dataset.path", "train/CLASS/*"),
    ("dataset=folder dataset.path=nowhere", "dataset.path", "no such folder: nowhere"),
    ("dataset=folder dataset.path=.", "dataset.path", "class folders"),
    ("dataset=folder dataset.path=", "dataset.path", "must not be empty"),
    ("dataset=folder dataset.path=3", "dataset.path", "'dataset.path=\"3\"'"),
    ("dataset.path=.", "dataset.path", "dataset=folder"),
    ("dataset.train_limit=0", "dataset.train_limit", "1 or more, or null"),
    ("dataset.test_limit=-1", "dataset.test_limit", "1 or more, or null"),
    ("dataset.max_side=x", "dataset.max_side", "a whole number or null"),
    # out and resume
    ("out=", "out", "must not be empty"),
    ("out=5", "out", "'out=\"5\"'"),
    ("resume=", "resume", "the folder of a run"),
    ("resume=true", "resume", "the folder of a run"),
    ("resume=nowhere", "resume", "config.yaml"),
    # sweeps: no job starts
    ("-m clients=2,0", "clients", "at least 1"),
    ("-m seed=0,1 clients=2,2000", "clients", "only 1437 training samples"),
    ("-m compressor=adc,adcc", "compressor", "did you mean adc?"),
    ("-m compressor=adc,topk compressor.ratio=0.1", "unknown key compressor.ratio", "rate, index_bits"),
    ("-m model.split_point=2,9", "model.split_point", "between 1 and 5"),
    ("-m 'clients=choice(2, 0)'", "clients", "at least 1"),
    ("-m 'clients=glob(*)'", "-m", "nothing to run"),
    ("-m seed=1,2 clients=", "clients", "a whole number"),
    ("-m nothing_like_it=1,2", "unknown key nothing_like_it", "--help"),
    ("-m seed=1,2 hydra.sweep.subdir=a", "-m", "a folder of its own"),
    ("-m seed=1,2 hydra.sweep.dir=a clients=0", "clients", "at least 1"),
    ("seed=1,2 -m hydra.sweeper.max_batch_size=1 rounds=1,0", "rounds", "at least 1"),
    ("-m 'hydra.sweep.dir=${nope}' seed=1,2", "hydra.sweep.dir", "'nope' not found"),
    # showing
    ("--cfg", "--cfg", "expected one argument"),
    ("--cfg some", "--cfg", "'job'"),
    ("--cfg job nothing_like_it=1", "unknown key nothing_like_it", "--help"),
    ("--cfg job --package nowhere", "nowhere", ""),
    ("--resolve", "--resolve", "--cfg"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "key", "right"), MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_a_mistake_is_one_line(refused: Refused, typed: str, key: str, right: str) -> None:
    line = refused(*shlex.split(typed))
    assert key in line
    assert right in line


# Keys that are announced but not there yet; once it is there, a key leaves this list.
LATER = ["logger=csv"]


@pytest.mark.parametrize("typed", LATER)
def test_what_is_not_there_yet_is_unknown(refused: Refused, typed: str) -> None:
    key = typed.partition("=")[0]
    assert f"unknown key {key}" in refused(typed)


def test_a_value_that_spans_lines_is_still_one_line(refused: Refused) -> None:
    assert "resume" in refused('resume="a\nb"')
    assert len(refused(f"optimizer_state={'x' * 5000}")) < 300


def test_home_is_where_the_user_has_it(accepted: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    [config] = accepted('out="~/run"')
    assert config.out == str(Path.cwd() / "home" / "run")


# A folder that cannot be the run's


def test_out_holds_a_run(refused: Refused, a_run: Path) -> None:
    line = refused(f"out={a_run}")
    assert f"out={a_run} already holds a run" in line
    assert f"resume={a_run}" in line


def test_out_holds_something_or_is_a_file(refused: Refused, here: Path) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "a.txt").write_text("mine")
    assert "out=notes already holds something" in refused("out=notes")
    assert "out=notes/a.txt is a file" in refused("out=notes/a.txt")
    assert "out=notes/a.txt/run cannot be made" in refused("out=notes/a.txt/run")
    assert "out=notes/a.txt/0 cannot be made" in refused("-m", "seed=1,2", "out=notes/a.txt")
    assert "cannot be made" in refused(f"out={'x' * 300}")


def test_out_is_not_writable(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "is not writable" in refused("out=a")
    assert "is not writable" in refused()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can write")
def test_out_turns_out_not_to_be_writable(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SMALL, "out=/proc/run"]) == 2
    assert "out=/proc/run cannot be made" in one_line(capsys.readouterr().err)
    assert cli.main([*SMALL, "hydra.run.dir=/proc/run"]) == 2
    assert "hydra.run.dir" in one_line(capsys.readouterr().err)
    assert contents(here) == {}


# Files that are not what they should be


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "some images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / split / name / "0.png")
    return folder


def typed_path(images: Path) -> list[str]:
    return ["dataset=folder", f'dataset.path="{images}"', "clients=2"]


def test_a_folder_of_images(refused: Refused, images: Path, accepted: Callable[..., list[Any]]) -> None:
    assert len(accepted(*typed_path(images))) == 1
    (images / "train" / "cat" / "1.png").write_bytes(b"not an image")
    assert "1.png cannot be read as an image (of no known format)" in refused(*typed_path(images))


def test_images_that_cannot_be_used(refused: Refused, images: Path) -> None:
    link = images / "train" / "cat" / "2.png"
    link.symlink_to("/nowhere/at/all")
    assert "dataset.path: No such file or directory" in refused(*typed_path(images))
    link.unlink()
    (images / "test" / "cow").mkdir()
    (images / "test" / "cow" / "0.png").write_bytes((images / "test" / "dog" / "0.png").read_bytes())
    assert "'cow'" in refused(*typed_path(images))
    shutil.rmtree(images / "test")
    assert "test/CLASS/*" in refused(*typed_path(images))
    (images / "train" / "cat" / "0.png").unlink()
    (images / "train" / "dog" / "0.png").unlink()
    (images / "test" / "dog").mkdir(parents=True)
    assert "no images" in refused(*typed_path(images))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.safetensors", b"{}"), ("a.pth", b"\x80\x04nothing"), ("a.pth", b""), ("a.pth", b"PK\x03\x04")],
)
def test_a_file_without_weights(refused: Refused, here: Path, name: str, content: bytes) -> None:
    (here / name).write_bytes(content)
    line = refused("model=deit_tiny", "model.image_size=32", f"model.pretrained={name}")
    assert f"model.pretrained: {name} is not a weights file" in line


def test_the_weights_of_another_model(refused: Refused, here: Path) -> None:
    save_file({"cls_token": torch.zeros(1, 1, 192)}, here / "few.safetensors")
    save_file({"cls_token": torch.zeros(1, 1, 384)}, here / "other.safetensors")
    arguments = ("model=deit_tiny", "model.image_size=32")
    assert "it lacks blocks.0" in refused(*arguments, "model.pretrained=few.safetensors")
    assert "other.safetensors does not fit deit_tiny: size mismatch for cls_token" in refused(
        *arguments, "model.pretrained=other.safetensors"
    )


# resume


@pytest.fixture(scope="module")
def finished(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished") / "run"
    flsplit.run([*SMALL, f"out={folder}"])
    yield folder


@pytest.fixture
def a_run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of two rounds; its checkpoint names files by their names only."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize(
    ("typed", "key", "right"),
    [
        ("clients=3", "clients=3", "has 2; leave it out"),
        ("compressor=topk", "compressor=topk", "has adc; leave it out"),
        ("compressor.ratio=0.3", "compressor.ratio=0.3", "has 0.25; leave it out"),
        ("out=elsewhere", "out=elsewhere", "leave it out"),
        ("rounds=1", "rounds=1", "has finished 2 already"),
        ("rounds=0", "rounds", "at least 1"),
        ("nothing_like_it=1", "unknown key nothing_like_it", "--help"),
        ("-m clients=2,3", "clients=3", "has 2; leave it out"),
    ],
)
def test_what_is_typed_beside_resume(refused: Refused, a_run: Path, typed: str, key: str, right: str) -> None:
    line = refused(f"resume={a_run}", *shlex.split(typed))
    assert key in line
    assert right in line


@pytest.mark.parametrize(
    "typed", ["", "clients=2 lr=2e-3 compressor=adc compressor.ratio=0.25", "engine=inline", "rounds=3"]
)
def test_what_agrees_with_the_run_to_resume(a_run: Path, accepted: Callable[..., list[Any]], typed: str) -> None:
    [config] = accepted(f"resume={a_run}", *typed.split())
    assert (config.clients, config.rounds) == (2, 3 if "rounds" in typed else 2)
    assert config.out == str(a_run)


def test_several_runs_are_resumed_where_they_are(
    a_run: Path, tmp_path: Path, accepted: Callable[..., list[Any]]
) -> None:
    other = shutil.copytree(a_run, tmp_path / "other")
    assert [config.out for config in accepted("-m", f"resume={a_run},{other}", "rounds=3")] == [str(a_run), str(other)]


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("clients: 2\n", "", "clients is missing"),
        ("clients: 2\n", "clients: two\n", "clients must be a whole number"),
        ("clients: 2\n", "clients: 2\nmore: 1\n", "unknown key more"),
        ("clients: 2\n", "clients: [\n", "not YAML"),
        ("split_point: 3", "split_point: 2", "not those of config.yaml"),
        ("ratio: 0.25", "ratio: 25", "compressor.ratio"),
    ],
)
def test_a_damaged_configuration(refused: Refused, a_run: Path, old: str, new: str, right: str) -> None:
    path = a_run / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert right in refused(f"resume={a_run}")


@pytest.mark.parametrize("content", [b"", b"- 1\n- 2\n", b"\xff\xfe\x00"])
def test_a_configuration_that_is_none(refused: Refused, a_run: Path, content: bytes) -> None:
    (a_run / "config.yaml").write_bytes(content)
    assert f"resume={a_run}: its config.yaml is damaged" in refused(f"resume={a_run}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", None),
        ("checkpoint", None),
        ("checkpoint/state.json", None),
        ("checkpoint/state.json", b"{"),
        ("checkpoint/state.json", b"{}"),
        ("checkpoint/models-0.safetensors", None),
        ("checkpoint/models-0.safetensors", b"xx"),
        ("checkpoint/clients/0.2.npy", None),
        ("checkpoint/clients/0.2.npy", b"xx"),
        ("rounds.parquet", None),
        ("rounds.parquet", b"xx"),
        ("clients.parquet", b"xx"),
    ],
)
def test_a_damaged_run(refused: Refused, a_run: Path, name: str, content: bytes | None) -> None:
    path = a_run / name
    assert path.exists()
    if content is not None:
        path.write_bytes(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    line = refused(f"resume={a_run}")
    assert "resume" in line
    assert name.partition("/")[0] in line


def test_a_run_killed_before_its_first_checkpoint_goes_on(a_run: Path, accepted: Callable[..., list[Any]]) -> None:
    (a_run / "checkpoint" / "state.json").unlink()
    (a_run / "rounds.parquet").unlink()
    assert len(accepted(f"resume={a_run}")) == 1


# What is unusual and right


@pytest.mark.parametrize(
    "typed",
    [
        "partition.alpha=inf", "clients=1", "compressor.ratio=1", "dataset.train_limit=50", "compressor.at_eval=True",
        "compressor=bottlenet compressor.final_relu=false", "lr=1e-4", "'clients=${batch_size}'", "++clients=4",
        "clients=3 clients=4", "model.image_size=4", "batch_size=5000", "local_epochs=null local_steps=3",
        "seed=99999999999999999999", "strategy.placement=central", "'strategy.aggregator_args={}'",
        "engine.cpus_per_client=0.5", "hydra/launcher=basic", "partition=shards partition.shards_per_client=500",
    ],
)  # fmt: skip
def test_an_unusual_request_is_none(accepted: Callable[..., list[Any]], typed: str) -> None:
    assert len(accepted(*shlex.split(typed))) == 1


def test_a_quoted_folder_is_trained_into(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SMALL, 'out="my run, (1)=a"']) == 0
    assert [path.name for path in here.iterdir()] == ["my run, (1)=a"]
    assert (here / "my run, (1)=a" / "summary.json").exists()


def test_a_sweep_has_a_folder_per_job(here: Path, accepted: Callable[..., list[Any]]) -> None:
    configs = accepted("-m", "seed=1,2", "compressor=adc,topk", "out=all")
    assert [config.out for config in configs] == ["all/0", "all/1", "all/2", "all/3"]
    assert [(config.seed, config.compressor["name"]) for config in configs] == [
        (1, "adc"), (1, "topk"), (2, "adc"), (2, "topk"),
    ]  # fmt: skip
    assert [path.name for path in here.iterdir()] == ["all"]


def test_jobs_in_one_folder_are_seen_however_long_they_take_to_check(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        day = 0

        @classmethod
        def now(cls) -> datetime:
            cls.day += 1
            return datetime(2026, 1, cls.day)

    monkeypatch.setattr("hydra.core.utils.datetime", Clock)
    assert "a folder of its own" in refused("-m", "seed=1,2", "hydra.sweep.subdir=a")


def test_groups_of_the_users_own(here: Path, refused: Refused, accepted: Callable[..., list[Any]]) -> None:
    (here / "own" / "compressor").mkdir(parents=True)
    (here / "own" / "compressor" / "mine.yaml").write_text("name: topk\nrate: 0.5\n")
    [config] = accepted("--config-dir", "own", "compressor=mine")
    assert config.compressor == {"name": "topk", "rate": 0.5}
    assert "c3sl, mine, randtopk" in refused("--config-dir", "own", "compressor=mne2")


def test_a_run_that_fails_is_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunFailed("no client is left")

    monkeypatch.setattr(experiment, "execute", fail)
    assert cli.main(["engine=inline"]) == 1
    assert one_line(capsys.readouterr().err) == "flsplit: no client is left"


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "execute", lambda *_, **__: [].pop())
    with pytest.raises(IndexError):
        cli.main(["engine=inline"])


def test_what_is_shown(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    for arguments, shows in (
        (["--help"], "compressor: adc, base"),
        (["--cfg", "job", "compressor=topk"], "rate: 0.1"),
        (["--version"], "flsplit"),
    ):
        assert cli.main(arguments) == 0
        output = capsys.readouterr()
        assert shows in output.out
        assert output.err == ""
    assert contents(here) == {}


def test_python_gets_the_same_line() -> None:
    with pytest.raises(UserError, match="unknown key client; did you mean clients"):
        flsplit.run(["client=4"])


# In a process of its own


def start(code: list[str]) -> subprocess.Popen[str]:
    root = str(Path(flsplit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_what_hydra_finds_is_told_before_anything_slow_is_imported(here: Path) -> None:
    check = "import sys; from flsplit.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules, code)"
    process = start(["-c", check, "compressor=adcc"])
    output, error = process.communicate(timeout=600)
    assert output == "False 2\n"
    assert "did you mean adc?" in one_line(error)
    assert contents(here) == {}


def test_the_program_itself(here: Path) -> None:
    process = start(["-m", "flsplit.cli", "hydra.run.dir=a", "clients=2000"])
    output, error = process.communicate(timeout=600)
    assert (process.returncode, output) == (2, "")
    assert "clients=2000" in one_line(error)
    assert contents(here) == {}


def test_ctrl_c_is_one_line(here: Path) -> None:
    process = start(["-m", "flsplit.cli", "engine=inline", "clients=2", "rounds=1000", "out=a"])
    deadline = time.monotonic() + 600
    while not (here / "a" / "checkpoint" / "state.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130
    said = [line for line in error.splitlines() if not line.startswith("round ")]
    assert said == ["flsplit: interrupted; resume=a goes on from here"]
