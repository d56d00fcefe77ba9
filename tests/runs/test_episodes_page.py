"""The page of episodes: differences marked, one file, and no text escapes."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

import pytest
from makers import episode

from score_jax.runs import episodes_page

HOSTILE = (
  '</script><script>alert(1)</script><!-- <script> <img src=x onerror=alert(1)> & "a" \'b\' '
  '\u2028\u2029\x00\ud800\u202e {{DATA}} {{HASH}} ${x} `\\u003c'
)


class Reader(html.parser.HTMLParser):
  """Collects what a browser would make of a page: elements, their attributes, scripts, texts."""

  def __init__(self, source):
    super().__init__()
    self._inside = None
    self.tags, self.scripts, self.attributes, self.texts = [], [], [], {}
    self.feed(source)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]
    self._inside = tag

  def handle_data(self, data):
    if self._inside == 'script':
      self.scripts.append(data)
      self._inside = None
    else:
      self.texts.setdefault(self._inside, data)


def read_page(source):
  """The page's data, and its reader."""
  reader = Reader(source)
  data, _ = reader.scripts
  return json.loads(data), reader


def whole(pieces):
  return ''.join(text for _, text in pieces)


def marked(pieces, mark):
  return [text for kind, text in pieces if kind & mark]


def test_differences_of_two_answers_by_hand():
  one, two = episodes_page.mark_differences(['So 6 x 7 = 41.\nDone', 'So 6 x 7 = 42.\nAll done'])
  assert one == [[0, 'So 6 x 7 = '], [1, '41'], [0, '.\n'], [1, 'Done']]
  assert two == [[0, 'So 6 x 7 = '], [2, '42'], [0, '.\n'], [2, 'All done']]


def test_indentation_and_line_ends_are_kept_and_compared():
  before, after = 'if x:\n    y = 1\n\ty', 'if x:\n  y = 1\n\ty'
  one, two = episodes_page.mark_differences([before, after])
  assert (whole(one), whole(two)) == (before, after)
  assert marked(one, episodes_page.GONE) == ['\n    ']
  assert marked(two, episodes_page.NEW) == ['\n  ']


def test_middle_answer_is_compared_with_both_neighbours():
  pieces = episodes_page.mark_differences(['a b c', 'a X c', 'a Y c', 'a Y d'])
  assert pieces == [
    [[0, 'a '], [1, 'b'], [0, ' c']],
    [[0, 'a '], [3, 'X'], [0, ' c']],
    [[0, 'a '], [2, 'Y'], [0, ' '], [1, 'c']],
    [[0, 'a Y '], [2, 'd']],
  ]


@pytest.mark.parametrize(
  'answers',
  [
    [],
    ['one answer only'],
    ['', 'now something'],
    ['same text', 'same text'],
    [HOSTILE, HOSTILE + ' and more', ''],
    ['the a the ' * 700, 'a the the ' * 650],  # a model in a loop must not take minutes
  ],
)
def test_what_is_not_marked_is_common_to_both(answers):
  """Whatever is marked, no text is lost, and the rest of two neighbours is the same words."""
  pieces = episodes_page.mark_differences(answers)
  assert [whole(turn) for turn in pieces] == answers
  for before, after in zip(pieces[:-1], pieces[1:], strict=True):
    stays = whole(piece for piece in before if not piece[0] & episodes_page.GONE)
    kept = whole(piece for piece in after if not piece[0] & episodes_page.NEW)
    assert stays == kept
  if len(set(answers)) == 1:
    assert all(mark == 0 for turn in pieces for mark, _ in turn)


def test_final_changes_go_by_stored_finals():
  texts = episode(['so 1/2', 'it is 1/2', 'so 1/2'], [1, 1, 1])
  assert episodes_page.final_changes(texts) == ['unknown', 'unknown']
  stored = texts | {'finals': ['1/2', '1/2', None]}
  assert episodes_page.final_changes(stored) == ['no', 'yes']
  assert episodes_page.final_changes(episode(['a', 'a'], [0, 0])) == ['no']
  assert episodes_page.final_changes(episode(['only'], [0])) == []


def test_page_is_one_file_that_runs_only_its_own_script():
  source = episodes_page.page([episode()], 'Title', ['A note.'])
  data, reader = read_page(source)
  assert data['notes'] == ['A note.']
  assert reader.texts['title'] == reader.texts['h1'] == 'Title'
  assert not {'link', 'img', 'iframe', 'object', 'base'} & set(reader.tags)
  names = {name for _, name, _ in reader.attributes}
  assert not names & {'src', 'href', 'srcset', 'action', 'onload', 'onclick', 'onerror'}
  assert not re.search(r'url\(|@import|https?:', source)
  (policy,) = [
    value for tag, name, value in reader.attributes if tag == 'meta' and 'default-src' in value
  ]
  script = reader.scripts[1]
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert "default-src 'none'" in policy
  assert f"script-src 'sha256-{digest}'" in policy
  assert '{{' not in source
  # The script makes text nodes; none of these would.
  assert not re.search(r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(', script)


# Of a browser what the page's script asks for, and no more; prints the transitions' chips.
BROWSER = """
const fs = require('fs');
class Node {
  constructor(tag) { Object.assign(this, {tag, attributes: {}, children: [], style: {}}); }
  setAttribute(key, value) { this.attributes[key] = value; }
  append(...nodes) {
    for (const node of nodes) {
      if (node instanceof Node) node.parentNode = this;
      this.children.push(node);
    }
  }
  replaceChildren(...nodes) { this.children = []; this.append(...nodes); }
  get nextSibling() { const all = this.parentNode.children; return all[all.indexOf(this) + 1]; }
  get value() { return this.attributes.value ?? ''; }
  set value(value) { this.attributes.value = value; }
  get textContent() { return this.children.map(c => c.textContent ?? c).join(''); }
  set textContent(text) { this.children = [text]; }
  get all() { return this.children.flatMap(c => c instanceof Node ? [c, ...c.all] : []); }
  get elements() { return Object.fromEntries(this.all.map(n => [n.attributes.name, n])); }
  get classList() { return {toggle() {}, add() {}, remove() {}}; }
  querySelectorAll(selector) {
    const [, tag, name, inside] = /^(\\w*)\\[name=(\\w+)\\]( option)?$/.exec(selector);
    const found = this.all.filter(n => n.attributes.name === name && (!tag || n.tag === tag));
    return inside ? found.flatMap(n => n.children) : found;
  }
  addEventListener() {}
}
const nodes = {};
globalThis.document = {
  getElementById: id => nodes[id] ??= new Node(id), createElement: tag => new Node(tag),
  querySelector: () => null, documentElement: {style: {setProperty() {}}},
};
Object.assign(globalThis, {
  location: {hash: ''}, CSS: {}, addEventListener() {}, getComputedStyle: () => ({}),
  ResizeObserver: class { observe() {} }, IntersectionObserver: class { observe() {} },
});
const [, data, script] = fs.readFileSync(process.argv[2], 'utf8').split(/<script[^>]*>/);
document.getElementById('data').textContent = data.split('</script>')[0];
(0, eval)(script.split('</script>')[0]);
for (const node of nodes.filters.querySelectorAll('input[name=transition]')) {
  console.log(node.nextSibling.textContent);
}
console.log(nodes.list.children.map(n => n.textContent.includes('before was cut off')).join(' '));
"""


@pytest.mark.skipif(not shutil.which('node'), reason='runs the page in node')
def test_corrections_of_answers_that_were_cut_off_are_counted(tmp_path):
  episodes = [
    episode(rewards=[0, 1], truncated=[True, False]),
    episode(rewards=[0, 1], truncated=[False, True]),
    episode(rewards=[1, 0], truncated=[True, True]),
    episode(rewards=[0, 0], truncated=[True, True]),
    # Of three turns the last two count.
    episode(['a', 'b', 'c'], [0, 0, 1], truncated=[True, False, False]),
    episode(['a', 'b', 'c'], [1, 0, 1], truncated=[False, True, False]),
  ]
  episodes = [e | {'number': n} for n, e in enumerate(episodes)]
  page, browser = tmp_path / 'page.html', tmp_path / 'browser.js'
  page.write_text(episodes_page.page(episodes, 'Title'))
  browser.write_text(BROWSER)
  done = subprocess.run(['node', browser, page], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  *chips, cards = done.stdout.splitlines()
  assert chips == ['all 6', 'i→c 4, cut off before: 2', 'c→i 1', 'c→c 0', 'i→i 1']
  assert cards == 'true false false false false true'


def test_hostile_texts_stay_text():
  harmless = episodes_page.page([episode()], 'Title')
  texts = [HOSTILE, HOSTILE + '\n  indented']
  one = episode(texts, question=HOSTILE, answer=HOSTILE, level=HOSTILE, source=HOSTILE)
  one |= {'reasons': [HOSTILE] * 2, 'finals': [HOSTILE, None]}
  source = episodes_page.page([one], HOSTILE, [HOSTILE])
  assert Reader(source).tags == Reader(harmless).tags
  source.encode('utf-8')  # half of a surrogate pair could not be written
  assert '\u2028' not in source and '\u2029' not in source
  data, reader = read_page(source)
  assert '<' not in reader.scripts[0]
  (shown,) = data['episodes']
  assert [whole(turn) for turn in shown['pieces']] == texts
  assert shown['question'] == shown['answer'] == shown['level'] == HOSTILE
  assert shown['reasons'] == [HOSTILE] * 2 and shown['finals'] == [HOSTILE, None]
  assert data['notes'] == [HOSTILE]
