import peft
import pytest
import torch
from conftest import SMALL
from torch import nn

from emotion_lightning.training import optimizer

STEPS = 100


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(8, 6)
        self.feedforward = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.score = nn.Linear(8, 3)


def groups_of(network, **options):
    rates = {"lr": 1e-3, "head_lr": 1e-2, "weight_decay": 0.1} | options
    return {group["name"]: group for group in optimizer.parameter_groups(network, head=["score"], **rates)}


def build(settings, *overrides, steps=STEPS, network=None):
    chosen = settings(*overrides)
    return optimizer.build_optimizer(chosen.optimizer, chosen.peft, network or Network(), head=["score"], steps=steps)


def rates(groups):
    return {group["name"].removesuffix("_no_decay"): group["initial_lr"] for group in groups}


def with_ia3():
    """IA3 vectors of both shapes, (6, 1) and (1, 6), and a head, as PEFT makes them."""
    settings = peft.IA3Config(target_modules=["dense", "feedforward"], feedforward_modules=["feedforward"])
    network = peft.inject_adapter_in_model(settings, Network())
    network.score.requires_grad_(True)
    vectors = [parameter for name, parameter in network.named_parameters() if "ia3_l" in name]
    assert sorted(tuple(vector.shape) for vector in vectors) == [(1, 6), (6, 1)]
    return network, vectors


def test_matrices_decay_and_biases_and_norms_do_not():
    network = Network()
    groups = groups_of(network)
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "body": 0.1,
        "body_no_decay": 0.0,
        "head": 0.1,
        "head_no_decay": 0.0,
    }
    assert {id(parameter) for name in ("body", "head") for parameter in groups[name]["params"]} == {
        id(layer.weight) for layer in (network.dense, network.feedforward, network.score)
    }


def test_every_trained_parameter_is_in_one_group():
    network = Network()
    network.dense.requires_grad_(False)
    grouped = [id(parameter) for group in groups_of(network).values() for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters() if parameter.requires_grad)


class Layered(nn.Module):
    """Named as a BERT is."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(5, 4)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.norm = nn.LayerNorm(4)
        self.score = nn.Linear(4, 3)


def test_layers_learn_slower_the_lower_they_are():
    groups = groups_of(Layered(), layer_decay=0.5)
    found = {name.removesuffix("_no_decay"): group["lr"] for name, group in groups.items()}
    assert found == {"layer_3": 1e-3, "layer_2": 5e-4, "layer_1": 2.5e-4, "layer_0": 1.25e-4, "head": 1e-2}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(Layered().parameters()))


def test_layer_decay_of_one_is_one_rate_for_the_body():
    assert set(groups_of(Layered(), layer_decay=1.0)) == {"body", "body_no_decay", "head", "head_no_decay"}


def test_adapters_learn_at_the_rate_of_their_layer():
    network = peft.inject_adapter_in_model(
        peft.IA3Config(target_modules=r"encoder\.layer\..*", feedforward_modules=[]), Layered()
    )
    found = {name: group["lr"] for name, group in groups_of(network, layer_decay=0.5).items()}
    assert found["layer_3_no_decay"] == 1e-3 and found["layer_1_no_decay"] == 2.5e-4


def test_ia3_vectors_do_not_decay():
    network, vectors = with_ia3()
    groups = groups_of(network)
    assert list(groups) == ["body_no_decay", "head", "head_no_decay"]
    assert {id(parameter) for parameter in groups["body_no_decay"]["params"]} == {id(vector) for vector in vectors}


def test_ia3_vectors_stay_at_one_without_gradients(settings):
    network, vectors = with_ia3()
    before = network.score.weight.detach().clone()
    chosen, schedule = build(settings, "optimizer.weight_decay=0.1", steps=2000, network=network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    for _ in range(2000):
        chosen.step()
        schedule.step()
    assert all((vector == 1).all() for vector in vectors)
    assert network.score.weight.norm() < before.norm()


def test_head_learns_at_its_own_rate():
    assert {name: group["lr"] for name, group in groups_of(Network()).items()} == {
        "body": 1e-3,
        "body_no_decay": 1e-3,
        "head": 1e-2,
        "head_no_decay": 1e-2,
    }


@pytest.mark.parametrize("method", ["ia3", "lora", "head"])
def test_open_rates_are_those_of_the_method(settings, method):
    chosen, _ = build(settings, f"peft={method}")
    wanted = settings(f"peft={method}").peft
    assert rates(chosen.param_groups) == {"body": wanted.lr, "head": wanted.head_lr}


def test_given_rates_win_over_the_method(settings):
    method = settings().peft
    lr, head_lr = "optimizer.lr=0.5", "optimizer.head_lr=0.25"
    assert rates(build(settings, lr)[0].param_groups) == {"body": 0.5, "head": method.head_lr}
    assert rates(build(settings, head_lr)[0].param_groups) == {"body": method.lr, "head": 0.25}
    assert rates(build(settings, lr, head_lr)[0].param_groups) == {"body": 0.5, "head": 0.25}


def test_betas_are_those_of_the_settings(settings):
    chosen, _ = build(settings, "optimizer.beta1=0.8", "optimizer.beta2=0.95")
    assert {group["betas"] for group in chosen.param_groups} == {(0.8, 0.95)}


def share(settings, *overrides, steps=STEPS):
    return optimizer.schedule(settings(*overrides).optimizer, steps=steps)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_warm_up_rises_to_the_peak(settings, kind):
    at = share(settings, f"optimizer.schedule={kind}", "optimizer.warmup=0.1")
    warm_up = [at(step) for step in range(11)]
    assert warm_up[0] > 0
    assert warm_up == sorted(set(warm_up))
    assert warm_up[-1] == 1
    assert max(at(step) for step in range(STEPS)) == 1


@pytest.mark.parametrize(("kind", "halfway", "end"), [("linear", 0.5, 0), ("cosine", 0.5, 0), ("constant", 1, 1)])
@pytest.mark.parametrize("warm_up", [0, 20])
def test_schedule_goes_from_the_peak_to_its_end(settings, kind, halfway, end, warm_up):
    at = share(settings, f"optimizer.schedule={kind}", f"optimizer.warmup={warm_up / STEPS}")
    middle = (warm_up + STEPS) // 2
    assert at(warm_up) == 1
    assert [at(middle), at(STEPS), at(STEPS + 5)] == pytest.approx([halfway, end, end])
    falling = [at(step) for step in range(warm_up, STEPS + 1)]
    assert falling == sorted(falling, reverse=True)


def test_cosine_is_flat_at_the_peak_where_linear_falls(settings):
    tenth = [share(settings, f"optimizer.schedule={kind}", "optimizer.warmup=0")(10) for kind in ("cosine", "linear")]
    assert tenth == pytest.approx([0.97553, 0.9], abs=1e-5)


def test_both_rates_end_at_zero(settings):
    chosen, schedule = build(settings)
    for _ in range(STEPS):
        chosen.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0] * 4)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_a_step_or_two_learns(settings, steps):
    at = share(settings, steps=steps)
    assert all(at(step) > 0 for step in range(steps))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_clipped_in_every_precision(run, monkeypatch, dtype):
    norms = []
    plain = nn.utils.clip_grad_norm_

    def recorded(parameters, limit):
        parameters = list(parameters)
        before = plain(parameters, limit)
        norms.append((float(before), float(torch.stack([p.grad.norm() for p in parameters]).norm()), limit))
        return before

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", recorded)
    small = [*SMALL, "trainer=debug", f"model.dtype={dtype}", "trainer.gradient_clip_val=0.01", "hydra.run.dir=out"]
    assert run("train", *small) == 0
    assert norms and all(limit == 0.01 and before > limit >= after - 1e-6 for before, after, limit in norms)


def test_the_update_in_one_kernel_is_that_of_the_plain_loop(settings):
    networks = [Network(), Network()]
    networks[1].load_state_dict(networks[0].state_dict())
    chosen = settings()
    for fused, network in zip((True, False), networks, strict=True):
        torch.manual_seed(0)
        adamw, _ = optimizer.build_optimizer(
            chosen.optimizer, chosen.peft, network, head=["score"], steps=STEPS, fused=fused
        )
        for _ in range(5):
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            adamw.step()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
