"""Every mistake in a key or a value: one line that names it and what would be right, code 2, nothing written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.command_line import Accepted, Refused

# What is typed, and what the line must say: the key, and what would be right.
MISTAKES = [
    # not a key and a value
    ("clients", "'clients'", "key=value"),
    ("resume runs/one", "'resume'", "write resume=VALUE"),
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
    ("strategy=centralized strategy.turn=round", "unknown key strategy.turn", "(strategy=centralized has no options"),
    ("faults.dropot=0.1", "unknown key faults.dropot", "(faults has dropout"),
    ("model.tune_server=lor", "model.tune_server must be one of", "did you mean 'lora'?"),
    ("model.tune=lora model.tune_args.rnk=4", "model.tune_args.rnk is not an option of lora", "did you mean 'rank'?"),
    ("model.tune_server_args.rank=4", "model.tune_server_args.rank is not an option of all", "it has none"),
    ("model.tune_server=lora model.tune_server_args.rank=0", "model.tune_server_args.rank", "at least 1"),
    ("strategy.logit_adjustment=null", "strategy.logit_adjustment must be a number", "got null"),
    ("client_profile=nothing.csv", "client_profile", "nothing.csv cannot be read: no such file or directory"),
    ("strategy.turn=round", "unknown key strategy.turn", "placement, aggregator"),
    ("compressor.rate=0.1", "unknown key compressor.rate;", "randtopk, splitfc and topk have it (compressor=adc has"),
    ("quantizer.bits=4", "unknown key quantizer.bits;", "quantizer=uniform has it (quantizer=none has no options)"),
    ("network.round_deadline_s=5", "unknown key network", "network=5g, custom and others have it (network=none has no"),
    ("partition.sigma=1", "unknown key partition.sigma", "alpha, holdout"),
    ("dataset.train_split=train", "unknown key dataset.train_split", "dataset=cifar10, cifar100 and others have it"),
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
    ("compressor=my.module", "compressor must be", "name: my.module, and type --config-dir FOLDER compressor=NAME"),
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
    ("~compressor.name", "~compressor.name", "another value"),
    ("~model.split_point", "~model.split_point", "another value"),
    ("~compressor.rul", "compressor.rul", "does not exist"),
    ("clients@there=3", "clients@there", "write clients=3"),
    ("compressor@there=topk", "compressor@there", "write compressor=topk"),
    ("clients=1,2", "clients", "need -m"),
    ("\"clients='4\"", "clients: the quote that '4 begins with", "not closed"),
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
    ("strategy=parallel strategy.aggregator=fedadam", "strategy.aggregator", "strategy.sync=gradient"),
    ("strategy=sequential strategy.aggregator=krum", "strategy.aggregator", "unknown key"),
    ("rounds=null", "rounds", "budget.base_epochs"),
    ("local_epochs=0", "local_epochs", "at least 1"),
    ("local_steps=0", "local_steps", "at least 1"),
    ("local_epochs=null", "local_epochs", "must be given"),
    ("local_epochs=2 local_steps=5", "local_epochs and local_steps", "give one, got local_epochs=2 and local_steps=5"),
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
    ("compressor.scope=all", "compressor.scope", "client, cohort"),
    ("compressor.merge=class", "compressor.merge", "any, within_class"),
    ("compressor.loss_weight=1", "compressor.loss_weight", "a string"),
    ("compressor.scope=cohort", "compressor.scope must be client for strategy=splitfed_v1", "strategy=parallel"),
    ("compressor.scope=cohort strategy=fedavg", "compressor.scope must be client", "strategy=parallel"),
    ("compressor.scope=cohort strategy=splitfed_v2", "compressor.scope must be client", "strategy.turn=step"),
    ("compressor.scope=cohort strategy=splitfed_v2 strategy.turn=step strategy.order=arrival", "compressor.scope",
     "strategy.order=random"),
    ("compressor=topk compressor.scope=cohort", "unknown key compressor.scope", "compressor=topk has rate"),
    ("compressor.scope=cohort strategy=parallel engine.stack=2", "engine.stack must be 1", "scope=cohort"),
    ("strategy=fedbuff network=lte engine.stack=2", "engine.stack must be 1", "for fedbuff, whose clients begin"),
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
    ("engine.stack=2 compressor=bottlenet", "engine.stack", "the compressor or a stage trains parameters"),
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
    ("model=timm model.name=densenet121", "densenet121", "not a Vision Transformer"),
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
    ("logger=tensorbord", "logger must be null or any of csv, tensorboard", "did you mean tensorboard?"),
    ("logger=[csv,csv]", "logger must name each tool once", "csv twice"),
    ("logger=5", "logger must be a list such as [a,b]", "got 5"),
]  # fmt: skip


@pytest.mark.some
@pytest.mark.parametrize(("typed", "key", "right"), MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_a_mistake_is_one_line(refused: Refused, typed: str, key: str, right: str) -> None:
    line = refused(*shlex.split(typed))
    assert key in line
    assert right in line


def test_an_option_that_the_file_of_an_own_strategy_does_not_name(refused: Refused, here: Path) -> None:
    (here / "conf" / "strategy").mkdir(parents=True)
    (here / "conf" / "strategy" / "own.yaml").write_text("name: strategies.splitfed_v1\nplacement: replica\n")
    line = refused("--config-dir", "conf", "strategy=own", "strategy.aggregator=krum")
    assert "unknown key strategy.aggregator; " in line and "takes a plus: +strategy.aggregator=VALUE" in line
    line = refused("--config-dir", "conf", "strategy=own", "+strategy.aggregator=krun")
    assert "did you mean krum?" in line


def test_a_value_that_spans_lines_is_still_one_line(refused: Refused) -> None:
    assert "resume" in refused('resume="a\nb"')
    assert len(refused(f"optimizer_state={'x' * 5000}")) < 300


def test_home_is_where_the_user_has_it(accepted: Accepted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    [config] = accepted('out="~/run"')
    assert config.out == str(Path.cwd() / "home" / "run")


# What is unusual and right


@pytest.mark.some
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
def test_an_unusual_request_is_none(accepted: Accepted, typed: str) -> None:
    assert len(accepted(*shlex.split(typed))) == 1
