import numpy as np

from mmdet_rfdetr.analysis.curve import running_mean, training_curve


def test_running_mean():
    values = np.array([4.0, 2.0, 6.0, 0.0])
    np.testing.assert_allclose(running_mean(values, 2), [4, 3, 4, 3])
    np.testing.assert_allclose(running_mean(values, 10), [4, 3, 4, 3])
    np.testing.assert_allclose(running_mean(values, 1), values)


def test_running_mean_recovers_from_what_is_not_finite():
    values = np.array([np.nan, 1.0, np.inf, 3.0, 5.0])
    np.testing.assert_allclose(running_mean(values, 2), [np.nan, 1, 1, 3, 4])


def lines(axes):
    return [line.get_xydata().tolist() for line in axes.get_lines()]


def test_curve_shows_what_it_is_given():
    losses, rates = np.array([8.0, 4.0, 6.0]), np.array([0.1, 0.2, 0.3])
    metrics = dict(mAP=[(1, 0.25), (3, 0.5)], mAP_50=[(1, 0.5), (3, 0.75)])
    figure = training_curve(losses, rates, metrics, smoothing=2)
    loss, validation, rate = figure.axes
    assert lines(loss) == [[[1, 8], [2, 4], [3, 6]], [[1, 8], [2, 6], [3, 5]]]
    assert lines(validation) == [[[1, 0.25], [3, 0.5]], [[1, 0.5], [3, 0.75]]]
    assert lines(rate) == [[[1, 0.1], [2, 0.2], [3, 0.3]]]
    names = [text.get_text() for text in validation.get_legend().get_texts()]
    assert names == ['mAP', 'mAP_50']


def test_iterations_are_whole_numbers():
    values = np.ones(3)
    *_, axes = training_curve(values, values, {}).axes
    assert {tick % 1 for tick in axes.get_xticks()} == {0}


def test_curve_without_validation(tmp_path):
    losses = np.full(3, np.nan)
    training_curve(losses, losses, {}).savefig(tmp_path / 'curve.png')
