"""The report as one page, to be sent to somebody."""

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto;
       padding: 0 1em; }
p, li { max-width: 50em; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px;
        font-variant-numeric: tabular-nums; margin: 1em 0; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #888; text-align: left; }
td:not(:first-child) { white-space: nowrap; }
td:first-child { min-width: 11em; }
img { max-width: 100%; width: 800px; height: auto; display: block; margin: 1.5em 0 0.3em; }
code { background: #f3f3f3; padding: 0 3px; }
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{css}</style></head>
<body>
{body}</body></html>
"""


def make_page(markdown: str, title: str, images: Mapping[str, bytes]) -> str:
  """Makes a page of the report that needs no other file.

  Args:
    markdown: the report.
    title: of the page.
    images: PNG by its path in the report.

  Returns:
    HTML without references to other files. HTML in the Markdown is shown, not obeyed.
  """
  parser = MarkdownIt('commonmark', {'html': False}).enable('table')
  tokens = parser.parse(markdown)
  for token in tokens:
    for child in token.children or ():
      if child.type == 'image':
        data = base64.b64encode(images[child.attrs['src']]).decode()
        child.attrs['src'] = f'data:image/png;base64,{data}'
  body = parser.renderer.render(tokens, parser.options, {})
  return PAGE.format(title=html.escape(title), css=CSS, body=body)
