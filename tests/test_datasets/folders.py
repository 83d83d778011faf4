"""Data sets of a few drawn images, in each format."""

from tests.factory import picture

SIZES = {'a': (40, 60), 'b': (50, 100)}
"""(height, width) of the images."""


def fill(folder, **files):
    """Write texts or bytes into files, by their paths with ``__`` for slashes."""
    for name, content in files.items():
        write(folder / name.replace('__', '/'), content)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)


def draw(folder, names=('a', 'b'), ending='.png'):
    """Write images of ``SIZES`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture(*SIZES.get(name, (40, 60)), number).save(folder / f'{name}{ending}')


def yolo(folder, labels=('', ''), names='names: [cat, dog]\n', more='', data=None):
    """A data set of two images, with labels beside them in ``labels``."""
    draw(folder / 'images' / 'train')
    for name, text in zip('ab', labels, strict=True):
        if text is not None:
            write(folder / 'labels' / 'train' / f'{name}.txt', text)
    write(folder / 'data.yaml', data or f'train: images/train\n{names}{more}')
    return str(folder / 'data.yaml')


OBJECT = (
    '<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin>'
    '<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
)


def xml(*objects, size=(40, 60), name='a.png', database='Unknown'):
    """A file of annotations; objects are (name, difficult, box) or texts."""
    inner = ''.join(
        each if isinstance(each, str) else OBJECT.format(*each[:2], *each[2])
        for each in objects
    )
    if size:
        height, width = size
        inner = f'<size><width>{width}</width><height>{height}</height></size>{inner}'
    source = f'<source><database>{database}</database></source>'
    return f'<annotation><filename>{name}</filename>{source}{inner}</annotation>'


def voc(folder, **files):
    """A data set of images in ``JPEGImages``, with files of XML by their stems."""
    draw(folder / 'JPEGImages')
    for stem, text in files.items():
        write(folder / 'Annotations' / f'{stem}.xml', text)
    return str(folder)
