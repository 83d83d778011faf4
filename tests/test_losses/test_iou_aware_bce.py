from .stages import assert_equals_slow_sum, assert_weight_and_no_pairs

CONFIG = dict(type='RFDETRIoUAwareBCELoss')


def entry_loss(logit, overlap, best, alpha=0.25):
    probability = logit.sigmoid()
    if overlap is None:
        return -(probability**2) * (-logit).sigmoid().log()
    target = max(probability.item() ** alpha * overlap ** (1 - alpha), 0.01)
    background = (1 - target) * (-logit).sigmoid().log()
    return -target * probability.log() - background


def test_formula():
    assert_equals_slow_sum(CONFIG, entry_loss)


def test_alpha():
    assert_equals_slow_sum(
        dict(CONFIG, alpha=0.6), lambda *args: entry_loss(*args, alpha=0.6)
    )


def test_weight_and_no_pairs():
    assert_weight_and_no_pairs(CONFIG)
