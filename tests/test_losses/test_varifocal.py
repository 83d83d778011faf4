from .stages import assert_equals_slow_sum, assert_weight_and_no_pairs

CONFIG = dict(type='RFDETRVarifocalLoss')


def entry_loss(logit, overlap, best, alpha=0.25, gamma=2):
    probability, background = logit.sigmoid(), (-logit).sigmoid()
    # A pair without overlap is background, like everything that is not matched.
    if not overlap:
        return -(1 - alpha) * probability**gamma * background.log()
    entropy = overlap * probability.log() + (1 - overlap) * background.log()
    return -overlap * entropy


def test_formula():
    assert_equals_slow_sum(CONFIG, entry_loss)


def test_alpha_and_gamma():
    assert_equals_slow_sum(
        dict(CONFIG, alpha=0.6, gamma=1.5),
        lambda *args: entry_loss(*args, alpha=0.6, gamma=1.5),
    )


def test_weight_and_no_pairs():
    assert_weight_and_no_pairs(CONFIG)
