from .stages import assert_equals_slow_sum, assert_weight_and_no_pairs

CONFIG = dict(type='RFDETRPositionSupervisedLoss')


def entry_loss(logit, overlap, best, alpha=0.25, gamma=2):
    probability, background = logit.sigmoid(), (-logit).sigmoid()
    target = (overlap or 0) / (best + 1e-8)
    balance = alpha if target > 0 else 1 - alpha
    entropy = target * probability.log() + (1 - target) * background.log()
    return -balance * abs(target - probability) ** gamma * entropy


def test_formula():
    assert_equals_slow_sum(CONFIG, entry_loss)


def test_alpha_and_gamma():
    assert_equals_slow_sum(
        dict(CONFIG, alpha=0.6, gamma=1.5),
        lambda *args: entry_loss(*args, alpha=0.6, gamma=1.5),
    )


def test_weight_and_no_pairs():
    assert_weight_and_no_pairs(CONFIG)
