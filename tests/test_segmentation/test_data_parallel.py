"""Masks trained in two processes, of which one may have nothing to learn from."""

import json

import pytest
import torch

from tests.interpreter import fork_together
from tests.test_command_line.precision_of_processes import train_and_record
from tests.test_segmentation.project import shrunk_config, write_pictures


@pytest.mark.long
def test_one_process_without_objects(tmp_path):
    """Data-parallel training stops if a process leaves parameters without gradient."""
    write_pictures(tmp_path)
    path = tmp_path / 'annotations.json'
    document = json.loads(path.read_text())
    document['annotations'] = [
        annotation for annotation in document['annotations'] if annotation['image_id']
    ]
    path.write_text(json.dumps(document))
    cfg = shrunk_config(tmp_path)
    cfg.train_dataloader.batch_size = 1
    cfg.launcher = 'pytorch'
    # The threads of the other engine do not survive the fork.
    cfg.val_evaluator.engine = 'pycocotools'
    assert not cfg.get('find_unused_parameters')
    cfg.dump(tmp_path / 'config.py')
    codes, said = fork_together(train_and_record, tmp_path, folder=tmp_path)
    assert codes == [0, 0], said
    assert not any('UserWarning' in text for text in said)
    checkpoint = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    moments = checkpoint['optimizer']['state']
    parameters = sum(len(g['params']) for g in checkpoint['optimizer']['param_groups'])
    assert len(moments) == parameters
