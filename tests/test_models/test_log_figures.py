import pytest
import torch

from mmdet_rfdetr.matching import Stages, Targets
from mmdet_rfdetr.models.log_figures import prediction_errors

from ..test_losses.stages import make_matches

# Stage 1 of three is the last decoder layer, stage 2 the encoder.
PREFIXES = ('d0.', '', 'enc_')


def test_errors_of_a_slow_count():
    torch.manual_seed(0)
    matches = make_matches()
    logits = torch.randn(3, sum(matches.stage_sizes), 5)
    labels = torch.tensor([2, 0, 4, 2, 0, 4, 2, 0, 4])
    counts = (4, 0, 2)
    # All pairs of the other stages are right, and one of the last layer's three.
    others = matches.stages != 1
    logits[matches.images[others], matches.rows[others], labels[others]] = 3
    rows = matches.rows[matches.stages == 1]
    logits[0, rows[0]] = torch.tensor([-1.0, -1, 3, -1, -1])
    logits[0, rows[1]] = torch.tensor([-1.0, 3, -1, -1, -1])
    logits[2, rows[2]] = torch.tensor([-1.0, 3, -1, -1, -1])
    targets = Targets(labels, torch.zeros(len(labels), 4), counts)
    of_stages = logits.split(matches.stage_sizes, dim=1)
    stages = Stages(of_stages, of_stages)
    assert tuple(stages.prefixes) == PREFIXES
    errors = prediction_errors(stages, labels, matches, targets)
    assert errors.pop('class_error').item() == pytest.approx(200 / 3)
    start = 0
    for prefix, size in zip(PREFIXES, matches.stage_sizes, strict=True):
        scores = logits[:, start : start + size].sigmoid()
        start += size
        total = 0
        for image, count in enumerate(counts):
            confident = sum(float(query.max()) > 0.5 for query in scores[image])
            total += abs(confident - count)
        error = errors.pop(f'{prefix}cardinality_error')
        assert error.item() == pytest.approx(total / 3)
    assert not errors


def test_no_objects_at_all():
    matches = make_matches(())
    logits = -torch.ones(3, sum(matches.stage_sizes), 5)
    labels = torch.zeros(0, dtype=torch.long)
    targets = Targets(labels, torch.zeros(0, 4), (0, 0, 0))
    of_stages = logits.split(matches.stage_sizes, dim=1)
    stages = Stages(of_stages, of_stages)
    assert tuple(stages.prefixes) == PREFIXES
    errors = prediction_errors(stages, labels, matches, targets)
    assert {name: value.item() for name, value in errors.items()} == {
        'class_error': 100,
        'd0.cardinality_error': 0,
        'cardinality_error': 0,
        'enc_cardinality_error': 0,
    }
