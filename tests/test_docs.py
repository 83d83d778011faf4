"""The README and the pages of docs/ say what there is."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmdet_rfdetr import config
from mmdet_rfdetr.checkpoints import to_official
from tests.fixtures import REPOSITORY
from tests.interpreter import run
from tests.live import PYTHON, needs_official
from tests.test_repository import PACKAGE, WINGS

README = (REPOSITORY / 'README.md').read_text()
PAGES = [*REPOSITORY.glob('*.md'), *(REPOSITORY / 'docs').glob('*.md')]
# A page may name a file without its folder where no other has its name.
FILES = {
    path.name
    for folder in ('mmdet_rfdetr', 'tests', 'tools', 'configs')
    for path in (REPOSITORY / folder).rglob('*.py')
}
LACKS_A_WING = any(
    not (PACKAGE / wing).exists() for wing in WINGS if not wing.startswith('_')
)
# Config names, link, file name and MD5 of each row.
WEIGHTS = [
    (re.findall('`([^`]+)`', configs), file, link, md5)
    for configs, file, link, md5 in re.findall(
        r'^\| (`rfdetr.*?) \|.*\| \[(\S+)\]\((\S+)\) \| `(\w+)` \|$',
        README,
        re.MULTILINE,
    )
]
PUBLISHED = re.findall(r'^\| `rfdetr.*\| ([\d.]*?) ?\| \[\S+\]\(', README, re.MULTILINE)
"""AP of each of these rows, or nothing."""


def anchors(page):
    """Names of the headings of a page, as GitHub makes them."""
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE):
        yield re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if link.startswith('https://'):
            continue
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.skipif(LACKS_A_WING, reason='pages name files of all wings')
@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_are_there(page):
    text = page.read_text()
    names = re.findall(r'`([\w./-]+(?:/|\.py))`', text)
    names += re.findall(r'\b(tests/[\w/]+\.py)\b', text)
    for name in names:
        folders = (REPOSITORY, PACKAGE, REPOSITORY / 'configs')
        is_there = any((folder / name).exists() for folder in folders)
        assert is_there or name in FILES, name


def test_every_room_is_shown():
    text = (REPOSITORY / 'docs' / 'structure.md').read_text()
    rooms = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert {room for room in rooms if f'`{room}/`' not in text} == set()


def test_every_config_of_coco_has_its_weights_once():
    named = [name for names, *_ in WEIGHTS for name in names]
    there = [*(REPOSITORY / 'configs').glob('rfdetr*_coco.py')]
    if not (PACKAGE / 'segmentation').exists():  # its configs are gone with it
        named = [name for name in named if '-seg_' not in name]
    wings = 'keypoints', 'keypoint_results'
    if not all((PACKAGE / wing).exists() for wing in wings):
        named = [name for name in named if '-pose_' not in name]
    there = [path.name for path in there if 'No official model' not in path.read_text()]
    if 'rfdetr_search_coco.py' not in there:
        named = [name for name in named if '_search_' not in name]
    assert sorted(named) == sorted(there)
    for column in list(zip(*WEIGHTS, strict=True))[1:]:
        assert len(set(column)) == len(WEIGHTS)


@pytest.mark.slow
@needs_official
def test_weights_are_those_of_the_official_package():
    lines = [
        'from rfdetr.assets.model_weights import ModelWeights as weights',
        'for entry in weights: print(entry.filename, entry.url, entry.md5_hash)',
    ]
    official = run([PYTHON, '-W', 'ignore', '-c', '\n'.join(lines)]).stdout.split('\n')
    for _, *row in WEIGHTS:
        assert ' '.join(row) in official or 'platform-licensed' in row[1]


def test_the_lines_that_detect_in_one_image(tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    assert len(list(filter(None, lines.split('\n')))) == 6
    init_default_scope('mmdet')
    cfg = Config.fromfile(config('rfdetr_nano_coco.py'))
    cfg.model.bbox_head.num_classes = 91  # as in official files
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.bbox_head.fc_cls.bias.fill_(-20)[85] = 20
    weights = {'model': dict(to_official(model.state_dict()))}
    torch.save(weights, tmp_path / 'rf-detr-nano.pth')
    Image.new('RGB', (80, 60)).save(tmp_path / 'street.jpg')
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    (said,) = set(re.findall(r'^(\w+) 1\.0 \[.+\]$', capsys.readouterr().out, re.M))
    assert said == 'clock'
