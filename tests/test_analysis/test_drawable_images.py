"""Pictures of detections on every image that training reads."""

import json

from mmengine.config import Config
from mmengine.runner import Runner

from tests.factory import USER_CLASSES as CLASSES
from tests.test_runtime import test_inference_images
from tests.test_runtime.test_inference_images import arrays, save

cfg = test_inference_images.cfg
model = test_inference_images.model
inferencer = test_inference_images.inferencer


def test_inferencer_draws_on_every_kind(inferencer, tmp_path):
    kinds = ('colour', 'float', 'bits16', 'turned', 'avif')
    paths = [save(kind, tmp_path) for kind in kinds]
    result = inferencer(
        [*map(str, paths), *arrays(), paths[0]],
        batch_size=1,
        out_dir=str(tmp_path / 'out'),
        pred_score_thr=0.0,
        return_vis=True,
    )
    assert len(result['predictions']) == len(result['visualization'])
    assert {path.stem for path in (tmp_path / 'out' / 'vis').iterdir()} >= set(kinds)
    assert all(image.shape[2] == 3 for image in result['visualization'])
    assert inferencer([]) == dict(predictions=[], visualization=[])


def test_a_test_draws_on_images_that_mmcv_does_not_read(
    cfg, toy_checkpoint, tmp_path, capfd
):
    paths = [save('float', tmp_path), save('colour', tmp_path), tmp_path / 'cut.png']
    paths[2].write_bytes(paths[1].read_bytes()[:900])
    images = [
        dict(id=index, file_name=path.name, height=40, width=60)
        for index, path in enumerate(paths)
    ]
    found = dict(id=1, image_id=1, category_id=1, bbox=[5, 5, 9, 9], area=81, iscrowd=0)
    names = [dict(id=index, name=name) for index, name in enumerate(CLASSES, 1)]
    document = dict(images=images, annotations=[found], categories=names)
    (tmp_path / 'a.json').write_text(json.dumps(document))
    changed = Config(cfg.to_dict())
    data = dict(data_root=str(tmp_path), ann_file='a.json', bad_data='skip')
    changed.test_dataloader.dataset.update(data)
    changed.test_evaluator.ann_file = str(tmp_path / 'a.json')
    hook = dict(type='DetVisualizationHook', draw=True, test_out_dir='shown')
    changed.default_hooks.visualization = hook
    changed.update(
        work_dir=str(tmp_path / 'work'), load_from=str(toy_checkpoint), launcher='none'
    )
    runner = Runner.from_cfg(changed)
    runner.test()
    drawn = {path.name for path in (tmp_path / 'work').rglob('shown/*')}
    assert drawn == {'float.png', 'colour.png', 'cut.png'}
