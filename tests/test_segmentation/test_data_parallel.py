"""Masks trained in two processes, of which one may have nothing to learn from."""

import json

import pytest

from tests.shrunk import assert_two_processes_train
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
    assert_two_processes_train(shrunk_config(tmp_path), tmp_path)
