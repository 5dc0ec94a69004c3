import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.data.labels import positive_weights
from emotion_lightning.evaluation.intensities import Intensities
from emotion_lightning.models import losses

COUNTS, ROWS = np.array([0, 1, 50, 100]), 200
"""A label without positives, a rare one, one in four, one in two."""


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(16, 4, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(16, 4, generator=generator) < 0.3).double()


def mean_over(positive, negative):
    """What a loss of these terms is on the batch; both are functions of probabilities, in numpy."""
    logits, targets = (tensor.numpy() for tensor in batch())
    p = 1 / (1 + np.exp(-logits))
    return np.where(targets == 1, positive(p), negative(p)).mean()


def approximately(value):
    return pytest.approx(float(value), abs=1e-7)  # weights are float32


def plain_bce():
    return approximately(binary_cross_entropy_with_logits(*batch()))


CUTS = torch.tensor([[-1.0, 0.0, 0.5], [-0.2, 0.0, 2.0], [-3.0, 0.0, 1.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)
LEVELS = Intensities(3.0, 2, CUTS)
"""Intensities of 0 to 3, present from 2 on."""


def ordinal(kind="none", cut_lr=0.01):
    return config.Ordinal(config.PositiveWeights[kind], None, beta=0.99, cut_lr=cut_lr)


def build(settings, *, masked=False, known_per_row=None):
    levels = LEVELS if isinstance(settings, config.Ordinal) else None
    return losses.build_loss(
        settings, label_counts=COUNTS, rows=ROWS, masked=masked, known_per_row=known_per_row, intensities=levels
    )


def weights(kind, clip=None):
    return positive_weights(
        config.WeightedBCE(config.PositiveWeights[kind], clip, beta=0.99), label_counts=COUNTS, rows=ROWS
    )


@pytest.mark.parametrize(
    ("kind", "clip", "expected"),
    [
        ("none", None, [1, 1, 1, 1]),
        ("neg_pos", None, [1, 199, 3, 1]),
        ("neg_pos", 10, [1, 10, 3, 1]),
        ("neg_pos", 2, [1, 2, 2, 1]),
        ("sqrt", None, [1, 199**0.5, 3**0.5, 1]),
        ("sqrt", 10, [1, 10, 3**0.5, 1]),
        ("effective_number", None, [1, *((1 - 0.99 ** (200 - n)) / (1 - 0.99**n) for n in (1, 50, 100))]),
        ("effective_number", 10, [1, 10, (1 - 0.99**150) / (1 - 0.99**50), 1]),
    ],
)
def test_positives_weigh_by_how_rare_their_label_is(kind, clip, expected):
    assert weights(kind, clip).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", config.PositiveWeights)
@pytest.mark.parametrize("clip", [None, 10])
def test_a_label_that_every_row_has_keeps_a_gradient(kind, clip):
    settings = config.WeightedBCE(kind, clip, 0.99)
    module = losses.build_loss(settings, label_counts=np.array([0, 6, 3]), rows=6)
    assert module.weights is None or module.weights[:2].tolist() == [1, 1]
    logits = torch.zeros(6, 3, requires_grad=True)
    module(logits, torch.tensor([[0.0, 1.0, row % 2] for row in range(6)])).backward()
    assert (logits.grad[:, 1] < -0.01).all()


def test_weighted_bce_counts_positives_by_their_weight():
    weighted = np.array([1.0, 10.0, 3.0, 1.0])
    found = build(config.WeightedBCE(config.PositiveWeights.neg_pos, 10, beta=0.99))(*batch())
    assert found == approximately(mean_over(lambda p: -weighted * np.log(p), lambda p: -np.log(1 - p)))


@pytest.mark.parametrize(
    "settings",
    [
        config.BCE(),
        config.WeightedBCE(config.PositiveWeights.none, None, 0.0),
        config.WeightedBCE(config.PositiveWeights.effective_number, None, 0.0),
        config.Correlated(alpha=0.0),
        config.Focal(gamma=0, alpha=None),
        config.Asymmetric(gamma_positive=0, gamma_negative=0, clip=0),
    ],
    ids=str,
)
def test_losses_that_weigh_nothing_are_plain_bce(settings):
    assert build(settings)(*batch()) == plain_bce()


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
def test_focal_loss_follows_its_paper(gamma, alpha):
    positive, negative = (1, 1) if alpha is None else (alpha, 1 - alpha)
    expected = mean_over(
        lambda p: -positive * (1 - p) ** gamma * np.log(p), lambda p: -negative * p**gamma * np.log(1 - p)
    )
    assert build(config.Focal(gamma, alpha))(*batch()) == approximately(expected)


@pytest.mark.parametrize("clip", [0, 0.05, 0.5])
@pytest.mark.parametrize(("gamma_positive", "gamma_negative"), [(0, 0), (0, 4), (1, 4), (0.5, 1)])
def test_asymmetric_loss_follows_its_paper(gamma_positive, gamma_negative, clip):
    def negative(p):
        shifted = np.maximum(p - clip, 0)
        return -(shifted**gamma_negative) * np.log(1 - shifted)

    expected = mean_over(lambda p: -((1 - p) ** gamma_positive) * np.log(p), negative)
    assert build(config.Asymmetric(gamma_positive, gamma_negative, clip))(*batch()) == approximately(expected)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize(
    "settings",
    [
        config.BCE(),
        config.WeightedBCE(config.PositiveWeights.neg_pos, None, 0.0),
        *[config.Focal(gamma, alpha) for gamma in (0.0, 0.5, 2.0) for alpha in (None, 0.25)],
        *[
            config.Asymmetric(positive, negative, clip)
            for positive, negative in ((0.0, 0.0), (0.0, 4.0), (1.0, 4.0), (0.5, 0.5))
            for clip in (0.0, 0.05)
        ],
    ],
    ids=str,
)
def test_extreme_logits_have_a_finite_loss_and_gradient(settings, target):
    logits = torch.tensor([[-100.0, -20.0, 20.0, 100.0]], requires_grad=True)
    value = build(settings)(logits, torch.full((1, 4), target))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("option", sorted(path.stem for path in (schema.conf_folder() / "loss").glob("*.yaml")))
def test_every_loss_option_builds_and_learns(settings, option):
    logits = torch.zeros(2, 4, requires_grad=True)
    targets = torch.tensor([[1.0] * 4, [0.0] * 4])
    data = ["data=file", "data.path=a.csv", "data.scale=3"] if option == "ordinal" else []
    value = build(settings(f"loss={option}", *data).loss)(logits, targets)
    value.backward()
    assert value.shape == () and value.dtype == torch.float32
    assert (logits.grad[0] < 0).all() and (logits.grad[1] > 0).all()


def test_weights_move_with_the_loss_and_stay_out_of_checkpoints():
    module = build(config.WeightedBCE(config.PositiveWeights.sqrt, None, 0.0))
    assert module.to("meta").weights.is_meta
    assert module.state_dict() == {}


def test_zlpr_is_the_paper_s_sum_over_pairs():
    logits, targets = (tensor.numpy() for tensor in batch())
    rows = [
        np.log(1 + np.exp(-row[truth == 1]).sum()) + np.log(1 + np.exp(row[truth == 0]).sum())
        for row, truth in zip(logits, targets, strict=True)
    ]
    assert build(config.ZLPR())(*batch()) == approximately(np.mean(rows))


def test_zlpr_stays_finite_at_extreme_logits_and_where_all_or_no_labels_hold():
    logits = torch.tensor([[1e4, -1e4], [300.0, 300.0], [-300.0, 5.0]], requires_grad=True)
    found = losses.ZLPR()(logits, torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_the_correlation_term_is_span_emo_s_mean_over_pairs(alpha):
    logits, targets = (tensor.numpy() for tensor in batch())
    p = 1 / (1 + np.exp(-logits))
    rows = []
    for row, truth in zip(p, targets, strict=True):
        pairs = [np.exp(q - r) for r in row[truth == 1] for q in row[truth == 0]]
        rows.append(np.mean(pairs) if pairs else 0.0)
    cross_entropy = -np.where(targets == 1, np.log(p), np.log(1 - p)).mean()
    found = build(config.Correlated(alpha=alpha))(*batch())
    assert found == approximately((1 - alpha) * cross_entropy + alpha * np.mean(rows))


BUILT_IN = {
    "bce": config.BCE(),
    "weighted_bce": config.WeightedBCE(config.PositiveWeights.neg_pos, None, beta=0.99),
    "focal": config.Focal(gamma=2.0, alpha=0.25),
    "asymmetric": config.Asymmetric(gamma_positive=0.5, gamma_negative=4.0, clip=0.05),
    "zlpr": config.ZLPR(),
    "correlated": config.Correlated(alpha=0.2),
    "ordinal": ordinal("neg_pos"),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_label_that_is_left_open_has_no_loss_and_no_gradient(name):
    loss = build(BUILT_IN[name], masked=True)
    logits, targets = batch()
    known = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    targets[~known] = torch.nan
    logits.requires_grad_()
    value = loss(logits, targets)
    value.backward()
    assert torch.isfinite(value) and (logits.grad[~known] == 0).all() and (logits.grad[known] != 0).any()
    others = torch.where(known, logits.detach(), torch.randn_like(logits))
    torch.testing.assert_close(loss(others, targets), value.detach())


@pytest.mark.parametrize("name", BUILT_IN)
def test_where_nothing_is_open_the_masked_loss_is_the_plain_one(name):
    masked = build(BUILT_IN[name], masked=True)
    torch.testing.assert_close(masked(*batch()), build(BUILT_IN[name])(*batch()))


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_a_masked_mean_is_that_of_the_known_labels(name):
    logits, targets = batch()
    targets[3:, 0] = torch.nan
    masked = build(BUILT_IN[name], masked=True)(logits, targets)
    known = ~targets.isnan()
    torch.testing.assert_close(masked, build(BUILT_IN[name])(logits[known][None], targets[known][None]))


def partly_known(rows=48, labels=4, seed=3):
    """Rows of which the first ones know all labels and the last ones hardly any, and the mean number of these."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    targets = (torch.rand(rows, labels, generator=generator) < 0.3).double()
    share = torch.linspace(1.2, 0.1, rows)[:, None]
    known = torch.rand(rows, labels, generator=generator) < share
    return logits, torch.where(known, targets, torch.nan), float(known.sum()) / rows


def gradient(loss, logits, targets, batches, *, weights=None):
    """The mean loss of batches of rows, each by its weight, and its gradient, [row, label]."""
    logits = logits.clone().requires_grad_()
    weights = weights or [1.0] * len(batches)
    total = sum(
        weight * losses.batch_loss(loss, logits[rows], targets[rows])
        for rows, weight in zip(batches, weights, strict=True)
    ) / len(batches)
    total.backward()
    return total.detach(), logits.grad


@pytest.mark.parametrize("name", BUILT_IN)
def test_accumulated_batches_with_open_labels_are_the_whole_batch(name):
    logits, targets, known_per_row = partly_known()
    loss = build(BUILT_IN[name], masked=True, known_per_row=known_per_row)
    whole = gradient(loss, logits, targets, [slice(0, 48)])
    for size in (8, 16):
        parts = gradient(loss, logits, targets, [slice(start, start + size) for start in range(0, 48, size)])
        torch.testing.assert_close(parts, whole)
    # A token budget makes batches of several sizes, which weigh by their rows, as `data.batches.Collate` gives them.
    sizes = [4, 20, 24]
    starts = np.cumsum([0, *sizes])
    batches = [slice(start, stop) for start, stop in zip(starts, starts[1:], strict=False)]
    parts = gradient(loss, logits, targets, batches, weights=[size / np.mean(sizes) for size in sizes])
    torch.testing.assert_close(parts, whole)
    # Over all rows it is what is scored.
    torch.testing.assert_close(whole[0], loss(logits, targets))


def test_means_of_what_each_batch_knows_would_not_be_those_of_the_whole():
    logits, targets, _ = partly_known()
    loss = losses.build_loss(config.BCE(), label_counts=COUNTS, rows=ROWS, masked=True)
    parts = [loss(logits[start : start + 16], targets[start : start + 16]) for start in range(0, 48, 16)]
    assert abs(float(sum(parts) / 3 - loss(logits, targets))) > 0.01


@pytest.mark.parametrize("name", BUILT_IN)
def test_without_open_labels_the_loss_of_a_batch_is_the_same_to_the_bit(name):
    logits, targets = (part.float() for part in batch())
    plain = build(BUILT_IN[name])
    assert torch.equal(losses.batch_loss(plain, logits, targets), plain(logits, targets))


def test_a_batch_in_which_everything_is_open_has_no_loss():
    loss = losses.build_loss(config.BCE(), label_counts=COUNTS, rows=ROWS, masked=True)
    assert float(loss(torch.ones(2, 4), torch.full((2, 4), torch.nan))) == 0


def test_positive_weights_are_of_the_rows_that_know_a_label_and_of_shares():
    settings = config.WeightedBCE(config.PositiveWeights.neg_pos, None, beta=0.99)
    found = positive_weights(settings, label_counts=np.array([10, 2.5, 7.0]), rows=np.array([20, 10, 7]))
    assert found.tolist() == [1, 3, 1]  # the last one is in every row that knows it


def test_cross_entropy_of_shares_is_least_at_the_shares():
    shares = torch.tensor([[0.25, 0.5, 0.75, 1 / 3]], dtype=torch.float64)
    logits = torch.logit(shares).requires_grad_()
    build(config.BCE())(logits, shares).backward()
    assert logits.grad.abs().max() < 1e-9


def shares():
    """Intensities of 0 to 3, and between them, as shares of 3, [16, 4]."""
    drawn = torch.rand(16, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (drawn * 3 * 2).round() / 2 / 3


@pytest.mark.parametrize("kind", ["none", "neg_pos"])
def test_ordinal_is_the_mean_over_the_levels_of_the_cross_entropy_of_reaching_them(kind):
    logits, targets = batch()[0], shares()
    total, weighs = 0.0, weights(kind).tolist()
    for row in range(16):
        for label in range(4):
            intensity = 3 * float(targets[row, label])
            for level in (1, 2, 3):
                p = 1 / (1 + np.exp(-(float(logits[row, label]) - float(CUTS[label, level - 1]))))
                reached = min(max(intensity - (level - 1), 0), 1)
                total -= weighs[label] * reached * np.log(p) + (1 - reached) * np.log(1 - p)
    found = build(ordinal(kind))(logits, targets)
    assert float(found) == pytest.approx(total / (16 * 4 * 3), rel=1e-5)


def test_ordinal_with_one_level_is_cross_entropy():
    one = losses.Ordinal(Intensities(1.0, 1, torch.zeros(4, 1)), weights=torch.ones(4), learns=True)
    assert one(*batch()) == plain_bce() and not list(one.parameters())
    assert one.intensities().cuts.tolist() == [[0]] * 4


def test_cut_points_begin_where_they_were_put_and_presence_stays_at_zero():
    loss = build(ordinal())
    assert torch.allclose(loss.cuts().double(), CUTS, atol=1e-6)
    with torch.no_grad():
        loss.raw_steps -= 50  # softplus of it is no longer distinguishable from 0, and never below
    cuts = loss.intensities().cuts
    assert bool((cuts.diff(dim=1) >= 0).all()) and cuts[:, 1].tolist() == [0] * 4


def test_cut_points_are_learned_unless_they_are_fixed():
    assert [name for name, _ in build(ordinal()).named_parameters()] == ["raw_steps"]
    fixed = build(ordinal(cut_lr=None))
    assert not list(fixed.parameters()) and fixed.state_dict() == {}


def test_learned_cut_points_are_those_of_the_data():
    """Levels drawn by known cut points around known logits are found again."""
    generator = torch.Generator().manual_seed(4)
    true = torch.tensor([[0.0, 1.0, 3.0]])
    logits = 2 * torch.randn(20_000, 1, generator=generator)
    drawn = torch.rand(20_000, 1, generator=generator)
    levels = (drawn[..., None] < torch.sigmoid(logits[..., None] - true)).sum(-1) / 3
    everything = torch.ones_like(levels, dtype=torch.bool)
    start = Intensities.of_train(levels, everything, scale=3, present=1)
    loss = losses.Ordinal(start, weights=torch.ones(1), learns=True)
    # What ignores the logits is too narrow.
    assert float(start.cuts[0, 2]) < 2.5
    optimizer = torch.optim.LBFGS(loss.parameters(), line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        value = loss(logits, levels)
        value.backward()
        return value

    optimizer.step(step)
    reading = losses.learned_intensities(loss)
    assert reading.cuts[0].tolist() == pytest.approx([0, 1, 3], abs=0.1)
    expected = reading.shares(torch.sigmoid(logits))
    assert float((expected - levels).mean()) == pytest.approx(0, abs=0.01)


def test_only_ordinal_has_intensities_of_its_own_with_a_mask_too():
    assert losses.learned_intensities(build(config.BCE())) is None
    assert losses.learned_intensities(build(ordinal(), masked=True)).scale == 3


def test_ordinal_stays_finite_at_extreme_logits():
    logits = torch.tensor([[1e4, -1e4, 300.0, -300.0]], requires_grad=True)
    loss = build(ordinal())
    found = loss(logits, torch.tensor([[0.0, 1.0, 1 / 3, 2 / 3]]))
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(logits.grad).all() and torch.isfinite(loss.raw_steps.grad).all()
