"""Split-federated training written out plainly: one process, whole models, one autograd graph per step.

Nothing here uses flsplit's sides, hosts, links, strategies or engines. Only the batches and the random streams are
the platform's, so that both see the same numbers, and `timm` models and compressors, which have tests of their own.
What a setting leads to is worked out once, for all tests that ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from compressors import BatchShape, Compressor, Payload, build
from flsplit import data
from flsplit.data.pipeline import Pipeline
from flsplit.split.model import build as build_model
from flsplit.streams import torch_stream


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A small experiment on the digits."""

    clients: int = 1
    rounds: int = 2
    batch_size: int = 8
    lr: float = 2e-3
    compressor: str = "base"
    options: tuple[tuple[str, Any], ...] = ()
    limit: int = 60
    split_point: int = 2
    seed: int = 3
    alpha: float = 1.0
    tau: float = 0.0  # of the adjustment to what labels a client has; not by `centralized` and those in turns

    def overrides(self, **more: object) -> list[str]:
        """The same on flsplit's command line."""
        keys = {
            "clients": self.clients, "rounds": self.rounds, "batch_size": self.batch_size, "lr": self.lr,
            "dataset.train_limit": self.limit, "dataset.test_limit": 40, "model.split_point": self.split_point,
            "seed": self.seed, "partition.alpha": self.alpha, "compressor": self.compressor,
            **{f"compressor.{key}": value for key, value in self.options}, **more,
            **({"strategy.logit_adjustment": self.tau} if self.tau else {}),
        }  # fmt: skip
        return [f"{key}={value}" for key, value in keys.items()]


class Whole:
    """An uncut ViT with a compressor between two of its blocks, and an Adam for each side of the cut."""

    def __init__(self, setting: Setting, vit: nn.Module, compressor: Compressor) -> None:
        self.vit, self.compressor, self.setting = vit, compressor, setting
        self.term: Tensor | None = None  # that is added to the logits of the loss
        self.optimizers = [torch.optim.Adam(list(p.values()), lr=setting.lr) for p in self.sides()]

    def sides(self) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """Parameters left and right of the cut, by name, in the order of the model."""
        client, server = {}, {}
        for name, parameter in self.vit.named_parameters():
            first, *rest = name.split(".")
            left = first in ("cls_token", "pos_embed", "patch_embed") or (
                first == "blocks" and int(rest[0]) < self.setting.split_point
            )
            (client if left else server)[name] = parameter
        for half, side in ((self.compressor.client_half, client), (self.compressor.server_half, server)):
            if half is not None:
                side.update({f"half.{name}": p for name, p in half.named_parameters()})
        return client, server

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One forward pass from images to loss."""
        payload, shape = self.sent(images, labels, generator)
        z, target = self.compressor.decompress(payload, shape)
        logits = self.server(z)
        return F.cross_entropy(logits if self.term is None else logits + self.term, target)

    def server(self, z: Tensor) -> Tensor:
        """Right of the cut: activations to logits."""
        for block in self.vit.blocks[self.setting.split_point :]:
            z = block(z)
        return self.vit.forward_head(self.vit.norm(z))

    def sent(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Payload, BatchShape]:
        """Left of the cut: images to what crosses it."""
        vit, cut = self.vit, self.setting.split_point
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        for block in vit.blocks[: cut - 1]:
            x = block(x)
        block = vit.blocks[cut - 1]
        scores = cls_scores(block, x)
        x = block(x)
        payload = self.compressor.compress(x, labels, scores, generator=generator)
        shape = BatchShape(batch=x.shape[0], tokens=x.shape[1], width=x.shape[2], classes=10)
        return payload, shape

    def step(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, proximal: tuple[float, list[Tensor]] = (0, [])
    ) -> float:
        """One training step of both sides; `proximal` is FedProx's mu and the weights that it pulls to."""
        loss = self.loss(images, labels, generator)
        loss.backward()
        mu, anchor = proximal
        for p, start in zip((p for side in self.sides() for p in side.values()), anchor):
            p.grad += mu * (p.detach() - start)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()


@torch.no_grad()
def cls_scores(block: nn.Module, x: Tensor) -> Tensor:
    """Attention of the class token in a block, mean over heads, by the same expression as the platform's."""
    attention = block.attn
    batch, tokens, width = x.shape
    qkv = attention.qkv(block.norm1(x)).reshape(batch, tokens, 3, attention.num_heads, width // attention.num_heads)
    q, k, _ = qkv.unbind(2)
    q, k = q[:, :1].transpose(1, 2) * attention.scale, k.transpose(1, 2)
    return (q @ k.transpose(-2, -1)).softmax(-1)[:, :, 0].mean(1)


class Data:
    """The samples of every client and their batches."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        config = data.DatasetConfig(name="digits", train_limit=setting.limit, test_limit=40)
        dataset = data.load(config, seed=setting.seed)
        self.table = dataset.train
        partition = data.build_partition("dirichlet", alpha=setting.alpha)
        self.parts = data.deal(dataset.samples(()), setting.clients, partition, seed=setting.seed)
        half = (0.5, 0.5, 0.5)
        self.pipeline = Pipeline(
            image_size=8, augment="none", mean=half, std=half, device=torch.device("cpu"), seed=setting.seed
        )

    def batches(self, client: int, round: int, group: int) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """A client's batches of a round, each with the compressor's random stream."""
        found = self.pipeline.train_batches(
            self.table, self.parts[client], client=client, round=round, batch_size=self.setting.batch_size,
            group_size=group,
        )  # fmt: skip
        for step, (images, labels) in enumerate(found):
            yield images, labels, torch_stream(self.setting.seed, "compressor", client, round, step)


def starts(setting: Setting, samples: Data) -> list[Whole]:
    """The same for each client, which knows how often it has each class."""
    wholes = [start(setting) for _ in range(setting.clients)]
    for whole, rows in zip(wholes, samples.parts):
        if setting.tau:
            counts = torch.tensor([1 + (samples.table.labels[rows] == label).sum() for label in range(10)]).double()
            whole.term = (setting.tau * (counts / counts.sum()).log()).float()
    return wholes


def start(setting: Setting) -> Whole:
    """The model that everything starts from."""
    vit = build_model("vit_micro", classes=10, image_size=8, pretrained=False, seed=setting.seed)
    compressor = build(setting.compressor, **dict(setting.options))
    compressor.bind(tokens=17, width=64, generator=torch_stream(setting.seed, "compressor"))
    return Whole(setting, vit.train(), compressor)


def weights(parameters: dict[str, nn.Parameter]) -> Tensor:
    """Parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in parameters.values()])


@cache
def centralized(setting: Setting) -> tuple[Tensor, Tensor, list[float]]:
    """One client: a plain training loop. Returns both sides' weights and the mean loss of every round."""
    whole, samples, losses = start(setting), Data(setting), []
    for round in range(1, setting.rounds + 1):
        steps = [whole.step(*batch) for batch in samples.batches(0, round, whole.compressor.group_size)]
        losses.append(sum(steps) / len(steps))
    client, server = whole.sides()
    return weights(client), weights(server), losses


@cache
def splitfed_v1(setting: Setting, mu: float = 0.0) -> tuple[Tensor, Tensor]:
    """Each client trains a whole model; both sides are averaged, and so are the server side's moments."""
    samples = Data(setting)
    wholes = starts(setting, samples)
    for round in range(1, setting.rounds + 1):
        counts = [train(whole, samples, client, round, mu) for client, whole in enumerate(wholes)]
        for side in (0, 1):
            average([list(whole.sides()[side].values()) for whole in wholes], counts)
        slots = [[whole.optimizers[1].state[p] for p in whole.sides()[1].values()] for whole in wholes]
        for key in ("exp_avg", "exp_avg_sq", "step"):
            average([[slot[key] for slot in column] for column in slots], counts)
    client, server = wholes[0].sides()
    return weights(client), weights(server)


def fedbuff(setting: Setting, order: list[list[int]], rate: float, power: float) -> tuple[Tensor, Tensor]:
    """Nguyen et al. 2022, algorithm 1: in each round those of `order` report, and begin again from what comes of it.

    Clients keep the moments of their sides; those of the server sides are averaged with every step.
    """
    samples, wholes = Data(setting), [start(setting) for _ in range(setting.clients)]
    versions = [(*(weights(side) for side in wholes[0].sides()), torch.zeros(0))]
    began = [0] * setting.clients
    for round, done in enumerate(order, start=1):
        changes, moments = [], []
        for client in done:
            whole, base = wholes[client], versions[began[client]]
            for side in (0, 1):
                vector_to_parameters(base[side].clone(), whole.sides()[side].values())
            load_moments(whole.optimizers[1], whole.sides()[1], base[2])
            train(whole, samples, client, round)
            scale = (1 + len(versions) - 1 - began[client]) ** -power
            changes.append([scale * (weights(whole.sides()[side]) - base[side]) for side in (0, 1)])
            moments.append(moments_of(whole.optimizers[1], whole.sides()[1]))
            began[client] = len(versions)
        new = [versions[-1][side] + rate * sum(change[side] for change in changes) / len(done) for side in (0, 1)]
        versions.append((new[0], new[1], sum(moments) / len(moments)))
    return versions[-1][0], versions[-1][1]


def moments_of(adam: torch.optim.Adam, side: dict[str, nn.Parameter]) -> Tensor:
    """First and second moments and the step count, as one vector."""
    slots = [adam.state[p] for p in side.values()]
    pieces = [slot[key].flatten() for key in ("exp_avg", "exp_avg_sq") for slot in slots]
    return torch.cat([*pieces, slots[0]["step"].view(1)])


@torch.no_grad()
def load_moments(adam: torch.optim.Adam, side: dict[str, nn.Parameter], moments: Tensor) -> None:
    """What `moments_of` gave; an empty vector: none."""
    adam.state.clear()
    if not moments.numel():
        return
    sizes = [p.numel() for p in side.values()]
    means, squares, steps = moments.split([sum(sizes), sum(sizes), 1])
    for p, mean, square in zip(side.values(), means.split(sizes), squares.split(sizes)):
        adam.state[p] = {
            "exp_avg": mean.view_as(p).clone(), "exp_avg_sq": square.view_as(p).clone(), "step": steps[0].clone()
        }  # fmt: skip


def splitfed_v2(setting: Setting, order: list[list[int]], *, by_step: bool = False) -> tuple[Tensor, Tensor]:
    """All clients step one server side, in the given order of each round; client sides are averaged."""
    samples = Data(setting)
    wholes = [start(setting) for _ in range(setting.clients)]
    for other in wholes[1:]:  # one server side for all
        share(wholes[0], other)
    for round in range(1, setting.rounds + 1):
        counts = [0] * setting.clients
        queues = {c: list(samples.batches(c, round, wholes[c].compressor.group_size)) for c in order[round - 1]}
        turns = [(c, t) for c in order[round - 1] for t in range(len(queues[c]))]
        if by_step:
            turns.sort(key=lambda turn: (turn[1], order[round - 1].index(turn[0])))
        for client, step in turns:
            wholes[client].step(*queues[client][step])
            counts[client] += len(queues[client][step][1])
        average([list(whole.sides()[0].values()) for whole in wholes], counts)
    client, server = wholes[0].sides()
    return weights(client), weights(server)


@cache
def splitfed_v3(setting: Setting) -> tuple[list[Tensor], Tensor]:
    """Each client keeps its client side; server sides, and their moments, are averaged."""
    samples = Data(setting)
    wholes = [start(setting) for _ in range(setting.clients)]
    for round in range(1, setting.rounds + 1):
        counts = [train(whole, samples, client, round) for client, whole in enumerate(wholes)]
        average([list(whole.sides()[1].values()) for whole in wholes], counts)
        slots = [[whole.optimizers[1].state[p] for p in whole.sides()[1].values()] for whole in wholes]
        for key in ("exp_avg", "exp_avg_sq", "step"):
            average([[slot[key] for slot in column] for column in slots], counts)
    return [weights(whole.sides()[0]) for whole in wholes], weights(wholes[0].sides()[1])


def sequential(setting: Setting, order: list[list[int]]) -> tuple[Tensor, Tensor]:
    """One server side; the client side passes from client to client, its moments stay behind."""
    samples = Data(setting)
    wholes = [start(setting) for _ in range(setting.clients)]
    for other in wholes[1:]:
        share(wholes[0], other)
    last = wholes[0]
    for round in range(1, setting.rounds + 1):
        for client in order[round - 1]:
            copy_client_side(last, wholes[client])
            last = wholes[client]
            train(last, samples, client, round)
    client, server = last.sides()
    return weights(client), weights(server)


@cache
def parallel(setting: Setting, *, by_gradient: bool) -> tuple[Tensor, Tensor]:
    """One server side, stepped on all activations at once; client sides take one step together, or their own."""
    samples = Data(setting)
    wholes = starts(setting, samples)
    for other in wholes[1:]:
        share(wholes[0], other)
    for round in range(1, setting.rounds + 1):
        queues = [list(samples.batches(c, round, wholes[c].compressor.group_size)) for c in range(setting.clients)]
        for step in range(max(len(queue) for queue in queues)):
            active = [c for c in range(setting.clients) if step < len(queues[c])]
            sent = [wholes[c].sent(*queues[c][step]) for c in active]
            received = [tuple(f.detach().requires_grad_() for f in payload.floats) for payload, _ in sent]
            parts = [
                wholes[0].compressor.decompress(Payload(floats, payload.integers, payload.labels), shape)
                for floats, (payload, shape) in zip(received, sent)
            ]
            z, target = torch.cat([z for z, _ in parts]), torch.cat([t for _, t in parts])
            logits = wholes[0].server(z)
            if setting.tau:
                logits = logits + torch.cat([wholes[c].term.expand(len(t), -1) for c, (_, t) in zip(active, parts)])
            F.cross_entropy(logits, target).backward()
            wholes[0].optimizers[1].step()
            wholes[0].optimizers[1].zero_grad()
            for c, (payload, _), floats in zip(active, sent, received):
                torch.autograd.backward(payload.floats, tuple(f.grad for f in floats))
                if by_gradient and c != 0:
                    add_gradients(wholes[c], wholes[0])
                elif not by_gradient:
                    wholes[c].optimizers[0].step()
                    wholes[c].optimizers[0].zero_grad()
            if by_gradient:
                wholes[0].optimizers[0].step()
                wholes[0].optimizers[0].zero_grad()
                for other in wholes[1:]:
                    copy_client_side(wholes[0], other)
        if not by_gradient:
            counts = [sum(len(labels) for _, labels, _ in queue) for queue in queues]
            average([list(whole.sides()[0].values()) for whole in wholes], counts)
    client, server = wholes[0].sides()
    return weights(client), weights(server)


@torch.no_grad()
def copy_client_side(source: Whole, target: Whole) -> None:
    """Give `target` the client-side weights of `source`."""
    for a, b in zip(source.sides()[0].values(), target.sides()[0].values()):
        b.copy_(a)


@torch.no_grad()
def add_gradients(source: Whole, target: Whole) -> None:
    """Move the client-side gradients of `source` onto those of `target`."""
    for a, b in zip(source.sides()[0].values(), target.sides()[0].values()):
        b.grad = a.grad.clone() if b.grad is None else b.grad + a.grad
        a.grad = None


def share(owner: Whole, other: Whole) -> None:
    """Give `other` the server side, and its optimizer, of `owner`."""
    cut = owner.setting.split_point
    for number in range(cut, len(owner.vit.blocks)):
        other.vit.blocks[number] = owner.vit.blocks[number]
    other.vit.norm, other.vit.head = owner.vit.norm, owner.vit.head
    other.compressor.server_half = owner.compressor.server_half
    other.optimizers[1] = owner.optimizers[1]


def train(whole: Whole, samples: Data, client: int, round: int, mu: float = 0.0) -> int:
    """A client's local pass; returns the number of samples."""
    count = 0
    anchor = [p.detach().clone() for side in whole.sides() for p in side.values()] if mu else []
    for images, labels, generator in samples.batches(client, round, whole.compressor.group_size):
        whole.step(images, labels, generator, (mu, anchor))
        count += len(labels)
    return count


@torch.no_grad()
def average(columns: list[list[Tensor]], counts: list[int]) -> None:
    """Set the tensors of all clients to their mean, weighted by `counts`; clients without samples take no part."""
    for tensors in zip(*columns):
        mean = sum(t.double() * n for t, n in zip(tensors, counts)) / sum(counts)
        for tensor in tensors:
            tensor.copy_(mean.float())
