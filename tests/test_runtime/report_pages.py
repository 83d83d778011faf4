"""What is asked of every page of a report, whatever it shows."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

VOID = {'meta', 'input', 'img', 'br', 'hr', 'link'}


class Page(HTMLParser):
    """A page as a browser reads it: links, texts of elements, and whether it closes.

    Args:
        path: of the file.
    """

    def __init__(self, path):
        super().__init__()
        self.links, self.tags, self.open = [], [], []
        self.cells, self.rows = None, []
        self.source = path.read_text(encoding='utf-8')
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [
            value
            for name, value in attributes
            if name in ('src', 'href', 'srcset', 'action', 'data', 'xlink:href')
        ]
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ('td', 'th'):
            self.rows[-1][-1] += data.strip()

    def matrix(self):
        """Names of the rows, and counts (K + 1, K + 1) of the confusion matrix."""
        start = next(i for i, row in enumerate(self.rows) if row[-1] == 'missed')
        rows = self.rows[start + 1 : start + len(self.rows[start])]
        return [row[0] for row in rows], np.array([row[1:] for row in rows], int)

    def tiles(self):
        """Overall numbers by name."""
        pattern = r'class="tile"><span>(.*?)</span><strong>(.*?)</strong>'
        return dict(re.findall(pattern, self.source)[::-1])  # the first ones of a name


def check_page(folder):
    """Read a page and look at all that it needs.

    Every link leads to a picture beside the page that can be decoded, and nothing
    would be asked from elsewhere.

    Args:
        folder: of ``index.html``.

    Returns:
        The page.
    """
    page = Page(Path(folder, 'index.html'))
    for link in page.links:
        assert not re.match(r'[a-z]+:|/|\\', link), link
        with Image.open(Path(folder, link)) as image:
            image.load()
    style, script = (
        ''.join(re.findall(f'<{tag}>(.*?)</{tag}>', page.source, re.DOTALL))
        for tag in ('style', 'script')
    )
    assert style and script
    assert not re.search(r'url\(|@import|@font-face', style)
    assert not re.search(r'fetch|import|XMLHttp|://', script)
    assert [tag for tag, _ in page.tags].count('script') == 1
    return page
